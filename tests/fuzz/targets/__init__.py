"""The targets, by name.

``target`` says what a target is. ``contents`` and ``formats`` make checkpoint files,
which ``checkpoint_files`` and ``runs`` give to the package; ``settings`` has configs
and options, ``custom_data`` data sets, ``pictures`` images and videos.
"""

from . import checkpoint_files, custom_data, pictures, runs, settings
from .target import Target

ALL: dict[str, Target] = {
    target.name: target
    for module in (checkpoint_files, runs, settings, custom_data, pictures)
    for target in module.TARGETS_HERE
}
