"""Make mmengine's schedulers take only values from a checkpoint, no other attributes.

mmengine writes whatever the checkpoint holds over the attributes of a scheduler: also
over its methods.
"""

from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from convnext_dense.checkpoints.loaded_state import scheduler_state


def take_values_only() -> None:
    """Replace the method with which a scheduler takes its saved state."""
    _ParamScheduler.load_state_dict = load_state_dict


def load_state_dict(self: _ParamScheduler, state_dict: dict) -> None:
    """Take the values of a saved state for the attributes that the scheduler has.

    Raises:
        InputError: a value is of another type than the scheduler's own.
    """
    attributes = vars(self)
    attributes.update(scheduler_state(attributes, state_dict, type(self).__name__))
