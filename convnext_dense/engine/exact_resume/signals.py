"""Notes signals that ask this process to stop."""

import os
import signal
import threading
from types import FrameType
from typing import Any

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM and SIGINT (Ctrl-C), which then do not end the process.

    A second Ctrl-C raises KeyboardInterrupt.

    Attributes:
        name: of the latest signal; None before the first.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._handlers: dict[signal.Signals, Any] = {}  # before ``listen``

    def listen(self) -> None:
        """Start to note signals. In a thread other than the main one, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                self._handlers[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Stop noting signals: they do again what they did before ``listen``."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.name is None:
            # Not print: the signal may have interrupted one.
            os.write(2, b"\nstopping: this iteration is finished and saved first\n")
        self.name = signal.Signals(number).name
