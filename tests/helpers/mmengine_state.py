"""The state that mmengine keeps for a whole process: loggers, visualizers, layouts."""

import contextlib
import logging

from mmengine.config import config
from mmengine.logging import MMLogger
from yapf.yapflib import yapf_api


@contextlib.contextmanager
def logged():
    """Collect the messages of mmengine's current logger in a list."""
    messages, handler = [], logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def forget_instances(manager):
    """Forget the instances of a ``ManagerMixin`` class and of its subclasses.

    A new process has none; tests that start several runs need the same.
    """
    manager._instance_dict.clear()
    for subclass in manager.__subclasses__():
        forget_instances(subclass)


def dump_configs_without_yapf():
    """Let mmengine write configs unformatted.

    yapf formats a run's config four times, which takes up to 1.5 s each.
    """
    # The classic stack's mmengine.config imports the function by name.
    for module in (yapf_api, config):
        module.FormatCode = _unformatted


def _unformatted(text, **style):
    compile(text, "<config>", "exec")  # yapf refuses invalid Python too
    return text, True
