"""The console of a run is short, and its log file has everything."""

import contextlib
import warnings

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_state_dict

from convnext_dense.patches.console import hide_library_warnings, short_console

FILE_ONLY = (
    "Config:\nx = 1",
    "\n-----\nSystem environment:\n  y",
    "Hooks will be executed in the following order:\nz",
    "paramwise_options -- a:lr=1",
)


def test_the_log_file_has_what_the_console_leaves_out(tmp_path, capfd):
    file = tmp_path / "run.log"
    logger = MMLogger.get_instance("test_console", log_file=str(file))
    with short_console():
        for message in (*FILE_ONLY, "the Config:\nshown"):
            logger.info(message)
        logger.warning("The prefix is not set in metric class A.")
        load_state_dict(torch.nn.Sequential(*[torch.nn.Linear(1, 1)] * 20), {})
        logger.info("loss: 1")
    logger.info("Config:\nafter")
    out = capfd.readouterr().out
    lines = [line.partition("INFO - ")[2] or line for line in out.splitlines()]
    assert [
        line for line in lines if line in ("loss: 1", "the Config:", "Config:")
    ] == [
        "the Config:",
        "loss: 1",
        "Config:",
    ]
    assert "0.weight, 0.bias, 1.weight and 37 more, listed in the log file" in out
    assert "prefix" not in out
    text = file.read_text()
    for message in FILE_ONLY:
        assert message in text
    assert "The prefix is not set" in text
    assert "19.weight, 19.bias" in text


def test_a_long_list_of_shapes(tmp_path, capfd):
    logger = MMLogger.get_instance("shapes", log_file=str(tmp_path / "run.log"))
    model = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(9)])
    other = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(9)])
    with short_console():
        load_state_dict(model, other.state_dict(), logger=logger)
    out = capfd.readouterr().out
    assert "4.weight" not in out
    assert "14 more lines are in the log file" in out
    assert "8.bias" in (tmp_path / "run.log").read_text()


def test_nothing_is_left_out_without_a_file_or_at_the_level_debug(tmp_path, capfd):
    loggers = [
        MMLogger.get_instance("no_file"),
        MMLogger.get_instance("debug", log_file=str(tmp_path / "a"), log_level="DEBUG"),
    ]
    with short_console():
        for logger in loggers:
            logger.info("Config:\n%s", logger.instance_name)
    out = capfd.readouterr().out
    assert "\nno_file" in out
    assert "\ndebug" in out


@pytest.mark.parametrize("way", [short_console, hide_library_warnings])
def test_warnings_of_libraries_about_their_own_code(way):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with way() or contextlib.nullcontext():
            for message in (
                "The draw is False, it means that the hook for visualization will not",
                "faster_coco_eval is not installed, metrics will not be computed.",
                "another",
            ):
                warnings.warn(message, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another"]
