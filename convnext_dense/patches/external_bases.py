"""Find the configs of a toolbox that was installed under another name.

mmengine looks for ``mmseg::...`` in the distribution ``mmsegmentation``. The maintained
stack's is called ``onedl-mmsegmentation``, and so a config with such a ``_base_`` ends
in "mmsegmentation is not installed".
"""

import functools
from importlib.util import find_spec

from mmengine.config import config, utils
from mmengine.hub import hub
from mmengine.utils import is_installed


def find_by_module() -> None:
    """Let mmengine find a toolbox by its module, where its distribution is missing."""
    mmengines = utils._get_package_and_cfg_path
    if hasattr(mmengines, "__wrapped__"):
        return

    @functools.wraps(mmengines)
    def package_and_path(cfg_path: str) -> tuple[str, str]:
        package, path = mmengines(cfg_path)
        module = cfg_path.partition("::")[0]
        if not is_installed(package) and find_spec(module):
            package = module
        return package, path

    for user in utils, config, hub:
        user._get_package_and_cfg_path = package_and_path
