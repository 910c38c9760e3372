"""Checks that the losses and gradients of every step are finite."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from convnext_dense.errors import InputError, NotFiniteError
from convnext_dense.utils.distributed import bare
from convnext_dense.utils.text import few

from ..exact_resume import random_states
from . import start
from .batches import bad_losses, images, write
from .finite import OnHost, StepNumbers
from .norms import PooledNorms

# A loss scale halves with every overflow, and is small enough after fewer than these.
OVERFLOWS = 40


@HOOKS.register_module()
class WatchHook(Hook):
    """Stops training that cannot learn, and skips steps that are not finite.

    ``convnext-dense train`` adds the hook to every run; in another project, use
    ``custom_hooks = [dict(type='WatchHook')]``. Before the first step it looks for a
    learning rate of 0 everywhere, a backbone that does not learn or is not used, heads
    and losses for other classes than the data's, and batches of one image where a batch
    norm needs two.

    A step whose losses or gradients are not finite is skipped: weights, optimizer and
    running statistics do not change. The log names the iteration, the losses and the
    images. The first such batch in a row is written to
    ``WORK_DIR/not_finite/iter_N.pth`` for
    ``convnext-dense train CONFIG --replay FILE``. Steps that a loss scaler skips
    because fp16 overflowed are normal, and are counted only after 40 in a row.

    Args:
        max_in_a_row: the run ends after this many iterations in a row that are not
            finite.

    Raises:
        InputError: before the first step, if the run cannot learn.
        NotFiniteError: after ``max_in_a_row`` iterations in a row.
    """

    priority = "ABOVE_NORMAL"  # before the step is logged, averaged or saved

    def __init__(self, max_in_a_row: int = 3) -> None:
        self.max_in_a_row = max_in_a_row
        self._in_a_row = 0
        self._overflows = 0
        self._stepped = False  # whether the optimizer made this iteration's step
        self._first = True  # whether the next step is the first
        # The sum of the losses of a step's iterations so far.
        self._loss: Tensor | float = 0.0
        # The parameters of this process with gradients that are not finite.
        self._gradients: list[str] = []
        # Whether this iteration ends with a step, and whether it was skipped.
        self._step_due = self._skipped = False
        # Of the iteration's step; of the step's losses so far if it is not due.
        self._numbers: StepNumbers | None = None
        self._loss_so_far: OnHost | None = None
        self._parameters: list[tuple[str, nn.Parameter]] = []
        # The model's buffers, by module, and as they were before the iteration.
        self._of_modules: list[dict[str, Tensor | None]] = []
        self._buffers: list[Tensor] = []
        self._buffers_before: list[Tensor] = []

    def before_run(self, runner: Runner) -> None:
        """Check that the run can learn, and wrap the optimizer's methods."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):  # testing, or several optimizers
            return
        problem = start.problem(runner)
        if problem:
            raise InputError(problem)
        self._norms = PooledNorms(runner)
        wrapper.backward = self._summing(wrapper)
        wrapper.step = self._checked(bare(runner.model), wrapper)
        wrapper.optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *args: Any) -> None:
        self._stepped = True

    def _summing(self, wrapper: OptimWrapper) -> Callable:
        """Wrap ``wrapper.backward``: add the loss to the sum of the step first."""
        backward = wrapper.backward

        @functools.wraps(backward)
        def add_and_backward(loss: Tensor, **kwargs: Any) -> None:
            self._loss = self._loss + loss.detach()
            backward(loss, **kwargs)
            if not wrapper.should_update():  # no step, whose numbers have the loss
                self._loss_so_far = OnHost(self._loss)

        return add_and_backward

    def _checked(self, model: nn.Module, wrapper: OptimWrapper) -> Callable:
        """Wrap ``wrapper.step``: skip the step if a loss or gradient is not finite.

        The host waits for a GPU only where mmengine or torch waits for it anyway: where
        a loss scaler reads whether the step overflowed, or where the norm of the
        gradients is logged. Without a loss scaler and clipping it waits once.
        """
        step = wrapper.step
        scaled = hasattr(wrapper, "loss_scaler")  # it checks the gradients itself
        if wrapper.clip_grad_kwargs and not scaled:
            wrapper.clip_func = self._clipped_if_finite(wrapper)

        @functools.wraps(step)
        def checked_step(**kwargs: Any) -> None:
            self._step_due = True
            if self._first:
                self._first = False
                self._norms.stop()
                problem = start.without_gradient(model)
                if problem:
                    raise InputError(problem)
            parameters = None if scaled else self._parameters
            self._numbers = StepNumbers(self._loss, parameters)
            self._loss = 0.0
            if scaled:
                # The loss scaler looks at the parameters of the optimizer alone.
                gradients = (
                    parameter.grad
                    for group in wrapper.optimizer.param_groups
                    for parameter in group["params"]
                )
                first = next(
                    (g for g in gradients if g is not None and g.numel()), None
                )
                if first is not None:
                    self._numbers.spoil(first)
            elif not wrapper.clip_grad_kwargs:
                self._skip_if_not_finite(wrapper)
            step(**kwargs)

        return checked_step

    def _clipped_if_finite(self, wrapper: OptimWrapper) -> Callable:
        """Wrap ``wrapper.clip_func``: drop gradients that are not finite.

        The GPU clips while the host waits to know. mmengine, which waits next, then
        has nothing to wait for.
        """
        clip = wrapper.clip_func

        @functools.wraps(clip)
        def clip_if_finite(*args: Any, **kwargs: Any) -> Tensor | None:
            norm = clip(*args, **kwargs)
            self._skip_if_not_finite(wrapper)
            return None if self._skipped else norm  # what mmengine logs

        return clip_if_finite

    def _skip_if_not_finite(self, wrapper: OptimWrapper) -> None:
        """Take the gradients away if the step's numbers are not finite."""
        assert self._numbers is not None
        if not self._numbers.are_finite():
            self._skipped = True
            self._gradients = self._numbers.not_finite()
            # An optimizer skips parameters without a gradient.
            wrapper.optimizer.zero_grad(set_to_none=True)

    def before_train_epoch(self, runner: Runner) -> None:
        """List the model's parameters and buffers: each time would take a while."""
        model = bare(runner.model)
        self._parameters = list(model.named_parameters())
        self._of_modules = [m._buffers for m in model.modules() if m._buffers]

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Keep random states and buffers, for ``--replay`` and for a skipped step."""
        self._gradients = []
        self._step_due = self._skipped = self._stepped = False
        self._loss_so_far = None
        self._states = random_states.capture()
        buffers = [
            buffer
            for by_name in self._of_modules
            for buffer in by_name.values()
            if buffer is not None
        ]
        if list(map(id, buffers)) == list(map(id, self._buffers)):
            if buffers:  # torch refuses empty lists
                with torch.no_grad():
                    torch._foreach_copy_(self._buffers_before, buffers)
        else:  # the first iteration, or a module has replaced a buffer
            self._buffers = buffers
            self._buffers_before = [buffer.detach().clone() for buffer in buffers]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Report an iteration that is not finite, and undo its running statistics.

        Raises:
            NotFiniteError: it is the ``max_in_a_row``-th in a row.
        """
        losses = [] if self._losses_are_finite() else bad_losses(outputs or {})
        if not losses and not self._skipped and not self._stuck(runner):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._buffers_before, strict=True):
                buffer.copy_(before)
        self._report(runner, losses, outputs or {}, data_batch)

    def _losses_are_finite(self) -> bool:
        """Whether the iteration's losses are known to be finite.

        At this point mmengine has read the losses from a GPU, so reading the step's
        number takes no wait.
        """
        if self._step_due:
            assert self._numbers is not None
            self._skipped = not self._numbers.are_finite()
            return not self._skipped
        return self._loss_so_far is not None and self._loss_so_far.is_finite()

    def _stuck(self, runner: Runner) -> bool:
        """Whether a loss scaler has skipped more than ``OVERFLOWS`` steps in a row."""
        wrapper = runner.optim_wrapper
        if not hasattr(wrapper, "loss_scaler") or not wrapper.should_update():
            return False
        self._overflows = 0 if self._stepped else self._overflows + 1
        return self._overflows > OVERFLOWS

    def _report(
        self, runner: Runner, losses: list[str], outputs: Mapping, batch: object
    ) -> None:
        """Log what is not finite, and write the first batch in a row to a file.

        Args:
            losses: those that are not finite, with their values.
            outputs: all logged values of the iteration.

        Raises:
            NotFiniteError: ``max_in_a_row`` is reached.
        """
        cause = "loss: " + ", ".join(losses) if losses else "losses are finite"
        if self._gradients:
            cause += f"; gradients of {few(self._gradients)} are not"
        elif self._skipped and not losses:
            cause += (
                "; a loss or gradient of another process, or of an earlier iteration "
                "of the same step, is not"
            )
        elif not losses:
            cause += (
                f"; {self._overflows} steps in a row overflowed at every loss scale"
            )
        finite = ", ".join(
            f"{name} {torch.as_tensor(value).item():.4g}"
            for name, value in outputs.items()
            if not any(bad.startswith(f"{name} ") for bad in losses)
        )
        message = (
            f"iteration {runner.iter + 1} is not finite: {cause}"
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
            message += f"; to repeat the step: --replay {file}"
        runner.logger.error(f"{message}. The step is skipped")
        if self._in_a_row >= self.max_in_a_row:
            raise NotFiniteError(
                f"{self._in_a_row} iterations in a row were not finite. The last: "
                f"{message}"
            )
