"""Copies the configs and scripts into the package; pyproject.toml has the rest."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Puts configs, scripts and model-index.yml into ``.mim`` of the package.

    mim looks for them there, and so does ``convnext_dense.config.shipped``. An editable
    installation uses those of the checkout.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "convnext_dense/.mim")
        shutil.rmtree(target, ignore_errors=True)
        for name in ("configs", "tools"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        shutil.copy(ROOT / "model-index.yml", target)


setup(cmdclass={"build_py": BuildWithConfigs})
