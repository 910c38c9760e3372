"""Serves the page, and removes what was uploaded and predicted at the end."""

import contextlib
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from convnext_dense.config.trained import checkpoint_of
from convnext_dense.errors import InputError

from ..predict.predictor import Predictor
from .predictions import Predictions

LOCAL = "127.0.0.1"
PORTS = range(7860, 7960)  # gradio's


def wait_for_the_end(
    config: str | None,
    checkpoint: str,
    score_thr: float,
    host: str | None,
    port: int | None,
    device: str | None,
) -> None:
    """Serve the page of a model until Ctrl-C.

    Args:
        config: path of a config; None takes the config inside the checkpoint.
        checkpoint: anything that ``checkpoints.read`` takes, or a run's work dir.
        score_thr: the threshold at the beginning.
        host: the address to listen on; None is for this machine alone.
        port: None takes the first free port of ``PORTS``.
        device: such as 'cpu' or 'cuda:1'; None takes a GPU if there is one.

    Raises:
        InputError: gradio is not installed; the address or the port cannot be used;
            or the model cannot be loaded.
    """
    host = host or LOCAL
    port = _free_port(host, port)
    _require_gradio()
    checkpoint = checkpoint_of(checkpoint)
    predictor = Predictor(config, checkpoint, device)
    title = "/".join(Path(checkpoint).parts[-2:])
    with (
        contextlib.suppress(KeyboardInterrupt),
        serving(predictor, title, score_thr, host, port) as url,
    ):
        print(f"the page is at {url}   (Ctrl-C ends it)", flush=True)
        if host != LOCAL:
            print("every machine that reaches this address can use it", flush=True)
        threading.Event().wait()
    print("\nthe page is closed, and its files are removed")


@contextlib.contextmanager
def serving(
    predictor: Predictor, title: str, score_thr: float, host: str, port: int
) -> Iterator[str]:
    """A context in which the page is served; yields its address.

    Raises:
        InputError: the page cannot be served.
    """
    # gradio reads these when it is imported, and when a page is built.
    local = ",".join(filter(None, [os.environ.get("NO_PROXY"), LOCAL, "localhost"]))
    with tempfile.TemporaryDirectory(prefix="convnext-dense-demo-") as folder:
        variables = dict(
            GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", NO_PROXY=local
        )
        with _environment(variables):
            import gradio as gr

            from .page import CODE_FONTS, CSS, FONTS, LARGEST, build

            page = build(Predictions(predictor, Path(folder)), title, score_thr)
            try:
                _, url, _ = page.launch(
                    server_name=host,
                    server_port=port,
                    share=False,
                    quiet=True,
                    prevent_thread_lock=True,
                    max_file_size=LARGEST * 1_000_000,
                    state_session_capacity=20,  # each keeps an image
                    enable_monitoring=False,
                    ssr_mode=False,
                    pwa=False,
                    mcp_server=False,
                    footer_links=[],
                    theme=gr.themes.Default(font=FONTS, font_mono=CODE_FONTS),
                    css=CSS,
                )
            except (OSError, ValueError) as error:
                raise InputError(f"the page cannot be served: {error}") from error
            try:
                yield url
            finally:
                page.close(verbose=False)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """A context with other environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _require_gradio() -> None:
    """Raise an InputError if gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError(
            "the page needs the package gradio: pip install 'convnext-dense[demo]'"
        ) from error


def _free_port(host: str, port: int | None) -> int:
    """The port to listen on.

    Raises:
        InputError: it is in use, or the address is not one of this machine.
    """
    if port is not None and not 0 < port < 2**16:
        raise InputError(f"--port {port}: give a number from 1 to 65535")
    for candidate in PORTS if port is None else [port]:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, candidate))
            except PermissionError as error:
                raise InputError(
                    f"--port {candidate} is for the system: take one from 1024 on"
                ) from error
            except socket.gaierror as error:
                raise InputError(
                    f"--host {host} is no address: leave it out, or give 0.0.0.0"
                ) from error
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise InputError(
                    f"--host {host} cannot be listened on: {error.strerror}. Leave it "
                    "out, or give 0.0.0.0"
                ) from error
            return candidate
    if port is None:
        raise InputError(f"no port from {PORTS[0]} to {PORTS[-1]} is free: give --port")
    raise InputError(f"--port {port} is in use: name another one, or leave it out")
