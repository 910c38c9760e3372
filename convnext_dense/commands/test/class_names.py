"""Draws the names of classes in any script into the pictures of a test."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from convnext_dense.reports.drawing import draw_in_any_script


class ClassNamesHook(Hook):
    """Gives one test's visualizer fonts for names that are not ASCII."""

    def before_test(self, runner: Runner) -> None:
        """Change the visualizer, which knows the classes from now on."""
        meta = getattr(runner.visualizer, "dataset_meta", None) or {}
        if not all(str(name).isascii() for name in meta.get("classes") or ()):
            draw_in_any_script(runner.visualizer)
