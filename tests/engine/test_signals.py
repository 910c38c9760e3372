"""The first signal is noted; the second ends the process at once."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from convnext_dense.engine.exact_resume import signals
from convnext_dense.engine.exact_resume.signals import StopRequest

# Waits in C without an end, as for a compiler: Python calls no handler in that time.
IN_C = """
import ctypes, importlib.util, multiprocessing, sys, time

spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.daemon = True
worker.start()
signals.StopRequest().listen()
mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
print("ready", flush=True)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mutex is glibc's")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_in_a_long_call_into_c(number, code):
    command = [sys.executable, "-c", IN_C, signals.__file__]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with run:
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.stderr.readline() == b"\n"
        assert b"A second Ctrl-C or SIGTERM ends" in run.stderr.readline()
        time.sleep(signals.GRACE + 0.1)
        run.send_signal(signal.Signals[number])
        # Its worker has the same pipes: they end with it.
        try:
            _, err = run.communicate(timeout=10)
        finally:
            run.kill()
    assert run.returncode == code
    assert f"{number} again: ended at once".encode() in err


@pytest.fixture
def ended(monkeypatch):
    """The numbers of the signals that would have ended this process."""
    numbers = []
    monkeypatch.setattr(signals, "_end_at_once", numbers.append)
    return numbers


def test_a_second_signal(ended):
    request = StopRequest(grace=0)
    request.listen()
    try:
        signal.raise_signal(signal.SIGINT)
        assert request.name == "SIGINT"
        signal.raise_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        request.forget()
    assert ended == [signal.SIGTERM]


def test_signals_that_belong_together(ended):
    """As timeout and torchrun send them, also while the run is being saved."""
    request = StopRequest(grace=60)
    request.listen()
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        request.finish()
        signal.raise_signal(signal.SIGTERM)
    finally:
        request.forget()
    assert not ended


def test_after_a_run_that_fails_signals_have_their_former_effect(tmp_path):
    signal.set_wakeup_fd(-1)  # whatever an earlier test has left
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    request = StopRequest()
    request.listen()
    request.finish()
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    thread = threading.Thread(target=lambda: (request.listen(), request.forget()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
