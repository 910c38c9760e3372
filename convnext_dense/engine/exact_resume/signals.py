"""Notes signals that ask this process to stop, and ends it at the second one.

Python calls a signal's handler between two instructions of the main thread, so never
while that waits for a long call into C, such as the compilation of a kernel. The number
of each signal is also written to a socket at once (``signal.set_wakeup_fd``), where
another thread reads it.
"""

import multiprocessing
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

_STOPPING = (signal.SIGTERM, signal.SIGINT)
# Seconds after a signal in which others belong to it. ``timeout`` sends two to a
# program that it has started, and torchrun sends SIGTERM to its processes after Ctrl-C.
GRACE, GRACE_WITH_LAUNCHER = 0.3, 2.0
_NO_MORE = b"\0"  # ends the thread; no signal has this number


class StopRequest:
    """Notes SIGTERM and SIGINT (Ctrl-C), which then do not end the process.

    The second one ends the process at once, with the exit code that shells give to a
    program ended by that signal: 143 or 130. It ends the data-loader workers, too.
    While a call into C keeps Python's global lock, the end has to wait for it.

    Args:
        grace: seconds in which a further signal is no second one.

    Attributes:
        name: of the latest signal; None before the first.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.name: str | None = None
        self._handlers: dict[signal.Signals, Any] = {}  # before ``listen``
        self._socket: socket.socket | None = None  # to which numbers are written
        self._other_fd = -1  # to which they were written before ``listen``

    def listen(self) -> None:
        """Start to note signals. In a thread other than the main one, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _STOPPING:
            self._handlers[number] = signal.signal(number, self._note)
        self._socket, reader = socket.socketpair()
        self._socket.setblocking(False)
        self._other_fd = signal.set_wakeup_fd(
            self._socket.fileno(), warn_on_full_buffer=False
        )
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def finish(self) -> None:
        """Let further signals do nothing, after a first one; else ``forget``."""
        if self.name is None:
            self.forget()
        else:
            self._end_watch()

    def forget(self) -> None:
        """Stop noting signals: they do again what they did before ``listen``."""
        self._end_watch()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _end_watch(self) -> None:
        if self._socket:
            signal.set_wakeup_fd(self._other_fd)
            self._socket.send(_NO_MORE)
            self._socket.close()
            self._socket = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def _watch(self, reader: socket.socket) -> None:
        """Read the numbers of signals from a socket, and end at the second of ours."""
        first: float | None = None
        with reader:
            while (byte := reader.recv(1)) not in (b"", _NO_MORE):
                if byte[0] not in _STOPPING:  # SIGCHLD, for example
                    continue
                if first is None:
                    first = time.monotonic()
                    # Not print: the signal may have interrupted one.
                    os.write(
                        2,
                        b"\nstopping: this iteration is finished and saved first. A "
                        b"second Ctrl-C or SIGTERM ends the run at once\n",
                    )
                elif time.monotonic() - first > self.grace:
                    _end_at_once(byte[0])


def _end_at_once(number: int) -> None:
    """End this process and its workers, without saving."""
    name = signal.Signals(number).name
    os.write(
        2,
        f"\n{name} again: ended at once, nothing is saved. --resume continues from the "
        "newest checkpoint\n".encode(),
    )
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(128 + number)
