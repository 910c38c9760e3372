"""Has somebody asked this process to stop?"""

import os
import signal
import threading

_ASKING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM and SIGINT (Ctrl-C) while it listens, instead of dying of them.

    A second Ctrl-C is a KeyboardInterrupt, as ever.

    Attributes:
        name: the signal's, None as long as there was none.
    """

    def __init__(self):
        self.name: str | None = None
        self._before = {}

    def listen(self) -> None:
        """Only the main thread can; in another one signals do what they did."""
        if threading.current_thread() is threading.main_thread():
            for number in _ASKING:
                self._before[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Let signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame) -> None:
        if self.name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.name is None:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping: this iteration is finished and saved first\n")
        self.name = signal.Signals(number).name
