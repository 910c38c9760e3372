"""Are the losses and gradients of every step finite?"""

import functools
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from convnext_dense.errors import InputError, NotFiniteError
from convnext_dense.utils.distributed import bare
from convnext_dense.utils.text import few

from ..exact_resume import random_states
from . import start
from .batches import bad_losses, images, not_finite, write

# A loss scale that halves with every overflow is through with them after fewer.
OVERFLOWS = 40


@HOOKS.register_module()
class WatchHook(Hook):
    """Stops training that is worth nothing.

    ``tools/train.py`` adds it to every run; in another project,
    ``custom_hooks = [dict(type='WatchHook')]``. Before the first step it looks for a
    learning rate of 0 everywhere, a backbone that does not learn or is not used, and
    heads whose classes are not the data's.

    A step whose losses or gradients are not finite is not taken: weights, optimizer
    and running statistics stay what they were. The log names iteration, losses and
    images, and the first such batch of a row is written to
    ``WORK_DIR/not_finite/iter_N.pth`` for ``tools/train.py CONFIG --replay FILE``.
    Steps that a loss scaler skips because fp16 overflowed are its own matter, up to
    40 in a row.

    Args:
        max_in_a_row: so many end the run.

    Raises:
        InputError: before the first step.
        NotFiniteError: after ``max_in_a_row`` of them.
    """

    priority = "ABOVE_NORMAL"  # before the step is logged, averaged or saved

    def __init__(self, max_in_a_row: int = 3):
        self.max_in_a_row = max_in_a_row
        self._in_a_row = 0
        self._overflows = 0
        self._stepped = False
        self._first = True
        self._loss: torch.Tensor | float = 0.0  # of the step, of its iterations so far
        self._gradients: list[str] = []  # not finite, of this step and process
        self._step_due = self._skipped = False

    def before_run(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):  # testing, or several optimizers
            return
        wrong = start.trouble(runner)
        if wrong:
            raise InputError(wrong)
        wrapper.backward = self._adding_up(wrapper.backward)
        wrapper.step = self._careful(bare(runner.model), wrapper)
        wrapper.optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *args) -> None:
        self._stepped = True

    def _adding_up(self, backward):
        """``backward``, after adding the loss to those of the step."""

        @functools.wraps(backward)
        def backward_and_add(loss, **kwargs):
            self._loss = self._loss + loss.detach()
            backward(loss, **kwargs)

        return backward_and_add

    def _careful(self, model: torch.nn.Module, wrapper: OptimWrapper):
        """``wrapper.step``, which leaves all as it is if the loss or a gradient is not
        finite."""
        step = wrapper.step
        scaled = hasattr(wrapper, "loss_scaler")  # it looks at the gradients itself

        @functools.wraps(step)
        def careful_step(**kwargs):
            self._step_due = True
            if self._first:
                self._first = False
                wrong = start.without_gradient(model)
                if wrong:
                    raise InputError(wrong)
            # One number, so that a GPU is waited for once; of all processes, since
            # each has losses of its own and, of a sharded model, a part.
            total, self._loss = torch.as_tensor(self._loss).float(), 0.0
            if not scaled:
                total = total + _largest_gradients(model)
            all_reduce(total)
            self._skipped = not total.isfinite()
            if self._skipped:  # an optimizer passes over parameters without
                self._gradients = [] if scaled else not_finite(model)
                wrapper.optimizer.zero_grad(set_to_none=True)
            if not (self._skipped and scaled):  # a scaler does not
                step(**kwargs)

        return careful_step

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None):
        self._gradients = []
        self._step_due = self._skipped = self._stepped = False
        self._states = random_states.capture()
        self._buffers = [
            (buffer, buffer.clone()) for buffer in bare(runner.model).buffers()
        ]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        well = self._step_due and not self._skipped  # else no loss was looked at yet
        losses = [] if well else bad_losses(outputs or {})
        if not losses and not self._skipped and not self._stuck(runner):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self._tell(runner, losses, outputs or {}, data_batch)

    def _stuck(self, runner: Runner) -> bool:
        """Whether a loss scaler has skipped more steps than scaling explains."""
        wrapper = runner.optim_wrapper
        if not hasattr(wrapper, "loss_scaler") or not wrapper.should_update():
            return False
        self._overflows = 0 if self._stepped else self._overflows + 1
        return self._overflows > OVERFLOWS

    def _tell(self, runner: Runner, losses, outputs, batch) -> None:
        what = "loss: " + ", ".join(losses) if losses else "losses are finite"
        if self._gradients:
            what += f"; gradients of {few(self._gradients)}"
        elif self._skipped and not losses:
            what += (
                "; what is not is of another process, or of an iteration before it "
                "whose gradients were accumulated"
            )
        elif not losses:
            what += f"; {self._overflows} steps in a row overflowed whatever the scale"
        finite = ", ".join(
            f"{name} {torch.as_tensor(value).item():.4g}"
            for name, value in outputs.items()
            if not any(bad.startswith(f"{name} ") for bad in losses)
        )
        told = (
            f"iteration {runner.iter + 1} is not finite: {what}"
            + (f" (finite: {finite})" if finite else "")
            + f"; images: {', '.join(images(batch))}"
        )
        if self._in_a_row == 1:
            rank = f"_rank_{get_rank()}" if get_rank() else ""
            file = Path(
                runner.work_dir, "not_finite", f"iter_{runner.iter + 1}{rank}.pth"
            )
            model = bare(runner.model)
            write(file, model, self._states, batch, runner.iter + 1)
            told += f"; to run it again: --replay {file}"
        runner.logger.error(f"{told}. The step is not taken")
        if self._in_a_row >= self.max_in_a_row:
            raise NotFiniteError(
                f"{self._in_a_row} iterations in a row were not finite, the last: "
                f"{told}"
            )


def _largest_gradients(model: torch.nn.Module) -> torch.Tensor | float:
    """The largest of each parameter, added up: finite if all of them are."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    gradients = [g for g in gradients if g.numel()]  # of a sharded model some are empty
    if not gradients:
        return 0.0
    largest = torch._foreach_norm(gradients, float("inf"))
    return torch.stack([size.float() for size in largest]).sum()
