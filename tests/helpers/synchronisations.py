"""Notes which lines of which project make the host wait for a GPU."""

import collections
import importlib.util
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

OURS = "convnext_dense"
FOLDERS = {
    name: Path(spec.origin).parent
    for name in (OURS, "mmcv", "mmdet", "mmseg", "mmengine")
    if (spec := importlib.util.find_spec(name)) and spec.origin
}


@contextmanager
def noted() -> Iterator[collections.Counter]:
    """Count synchronisations inside, by project and line.

    torch warns of operations that synchronise. It does not warn of events that the host
    waits for: these are noted with whether the host had to wait.
    """
    counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def note(message: Any, *args: Any, **kwargs: Any) -> None:
        if "synchroniz" in str(message):
            counts[_origin(traceback.extract_stack())] += 1

    event_class: Any = torch.cuda.Event
    synchronize = event_class.synchronize

    def wait(event: Any) -> None:
        state = "already over" if event.query() else "waits"
        project, line = _origin(traceback.extract_stack())
        counts[project, f"{line} (event, {state})"] += 1
        synchronize(event)

    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        event_class.synchronize = wait
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")
            event_class.synchronize = synchronize
            warnings.showwarning = shown


def _origin(stack: traceback.StackSummary) -> tuple[str, str]:
    """The project and the line of a stack's innermost frame that is not torch's."""
    for frame in reversed(stack):
        for project, folder in FOLDERS.items():
            if Path(frame.filename).is_relative_to(folder):
                place = Path(frame.filename).relative_to(folder)
                return project, f"{place}:{frame.lineno} {frame.line}"
    return "other", "a thread of torch"
