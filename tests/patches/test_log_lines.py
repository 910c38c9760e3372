"""Names from files do not move the cursor when mmengine logs them."""

from logging import DEBUG

import torch
from mmengine import logging
from mmengine.logging import MMLogger, print_log
from mmengine.runner import load_state_dict


def test_debug_messages_without_a_logger_are_not_printed(capfd):
    logging.print_log("for developers", level=DEBUG)
    logging.print_log("for users")
    assert capfd.readouterr().out == "for users\n"


def test_control_characters_are_written_out(capfd):
    logger = MMLogger.get_instance("test_log_lines")
    print_log("a\x1b[2Jb\rc\td\n\u202ee %s", logger)
    print_log("100 %", logger)
    logger.warning("%s has %d", "\x07name", 3)
    load_state_dict(
        torch.nn.Linear(1, 1),
        {"weight": torch.zeros(1, 1), "x\x1b]0;title\x07": torch.zeros(1)},
        logger=logger,
    )
    out = capfd.readouterr()
    text = out.out + out.err
    assert "a\\x1b[2Jb\\rc\td\n\\u202ee %s" in text
    assert "100 %" in text
    assert "\\x07name has 3" in text
    assert "x\\x1b]0;title\\x07" in text
    assert not {"\r", "\x07", "\u202e"} & set(text)
