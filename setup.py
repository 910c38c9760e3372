"""Adds to the package what is no module of it; pyproject.toml has the rest."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildPackage(build_py):
    """Adds ``convnext_dense.pth``, and ``.mim`` with configs, scripts and their index.

    ``convnext_dense_startup`` says what the first is for. mim looks into ``.mim``, and
    so does ``convnext_dense.config.shipped``. An editable installation uses the
    configs and scripts of the checkout.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            wheel = self.get_finalized_command("install").install_purelib
            shutil.copy(ROOT / "convnext_dense.pth", wheel)
            return
        shutil.copy(ROOT / "convnext_dense.pth", self.build_lib)
        target = Path(self.build_lib, "convnext_dense/.mim")
        shutil.rmtree(target, ignore_errors=True)
        for name in ("configs", "tools"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        shutil.copy(ROOT / "model-index.yml", target)


setup(cmdclass={"build_py": BuildPackage})
