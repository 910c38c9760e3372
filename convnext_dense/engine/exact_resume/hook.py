"""Makes a run that was stopped continue as if it had never stopped."""

import functools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from convnext_dense.checkpoints import loaded_state
from convnext_dense.errors import STOPPED
from convnext_dense.utils import files, partials

from . import checked, ends, memory, new_config, position, random_states
from .gradients import accumulate, accumulated
from .position import global_batch
from .signals import GRACE_WITH_LAUNCHER, StopRequest
from .step_counts import counts_on_host
from .stream import seeded, start_worker

FILE = "interrupted.pth"  # the checkpoint that a signal causes
_KEY = "exact_resume"  # of this hook's state in a checkpoint


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes training that was stopped and resumed equal to training without a stop.

    Training that was killed and continues with ``resume=True`` ends with the same
    weights and logged values: bit for bit, where the arithmetic is deterministic (on a
    CPU; on GPUs with ``randomness.deterministic``).

    ``convnext-dense train`` adds the hook to every run; in another project, use
    ``custom_hooks = [dict(type='ExactResumeHook')]``. The hook adds to mmengine's
    checkpoints the states of all random generators of each process, the position in
    the data (see ``stream``), accumulated gradients, what other hooks remember (see
    ``memory``), and whether the validation that was due is done. The number of
    processes may change, and settings of the optimizer and the schedules, too (see
    ``schedules``).

    On SIGTERM or Ctrl-C the hook finishes the iteration, writes ``interrupted.pth``,
    and ends the process with exit code 75. ``resume=True`` finds that file. A second
    signal ends the process at once.
    """

    # After the other hooks have started training: it restores random states, and makes
    # a validation that was missed.
    priority = "LOWEST"

    def __init__(self) -> None:
        self._request = StopRequest()
        self._resumed: dict | None = None  # this hook's state in the checkpoint
        # Samples that all processes have used: in this epoch, or, without epochs, ever.
        self._samples = 0
        self._saved: dict = {}
        self._just_saved: Path | None = None  # a checkpoint after this very iteration
        self._validated_at = -1  # iteration
        self._before_validation: dict | None = None  # random states
        self._exact = False
        self._has_resumed = False
        self._stop_is_saved = False  # in the checkpoint from which the run resumed
        self._has_known_loop = self._by_epoch = False
        self._memory = memory.Memory(())

    def before_run(self, runner: Runner) -> None:
        """Make the samples depend on the seed; add the hook's state to checkpoints."""
        loop = runner._train_loop
        if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
            return  # testing, or a custom loop
        self._has_known_loop = True
        self._by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self._memory = memory.Memory(runner.hooks)
        runner._hooks = memory.come_last(runner._hooks, self._memory.kept(), self)
        self._exact = hasattr(loop.dataloader.batch_sampler, "sampler")
        if not self._exact:
            runner.logger.warning(
                "the training data has no batch sampler: after a stop, the run would "
                "continue with the images in another order"
            )
            return
        seed = [runner.seed]
        broadcast_object_list(seed)
        loop.dataloader = seeded(loop.dataloader, seed[0])
        if runner.val_loop is not None:
            # Signals to a whole job must not end the workers of the validation either.
            loader = runner.val_loop.dataloader
            loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        runner.save_checkpoint = self._with_states(runner, runner.save_checkpoint)

    # Saving

    def _with_states(self, runner: Runner, save: Callable) -> Callable:
        """Wrap ``runner.save_checkpoint``: gather the states of all processes first.

        All processes have to call the result.
        """

        @functools.wraps(save)
        def save_with_states(
            out_dir: str, filename: str, *args: Any, **kwargs: Any
        ) -> None:
            states = all_gather_object(
                self._before_validation or random_states.capture()
            )
            self._saved = dict(random_states=states, gradients=accumulated(runner))
            save(out_dir, filename, *args, **kwargs)
            if filename != FILE and kwargs.get("save_optimizer"):
                self._just_saved = Path(out_dir, filename)
                if is_main_process():  # the new checkpoint replaces it
                    Path(runner.work_dir, FILE).unlink(missing_ok=True)

        return save_with_states

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the hook's state to a checkpoint that has the optimizer's state."""
        if not self._exact or "optimizer" not in checkpoint:
            return  # weights alone: a run cannot continue from them
        iteration = checkpoint["meta"]["iter"]
        loader = runner.train_dataloader
        checkpoint[_KEY] = dict(
            self._saved,
            # Between epochs, no sample of the next epoch has been used.
            samples=(
                0 if self._by_epoch and iteration == runner.iter else self._samples
            ),
            batch=global_batch(loader),
            seed=loader.dataset.seed,
            sampler_seed=getattr(loader.batch_sampler.sampler, "seed", None),
            validated=self._validated_at == iteration,
            by_epoch=self._by_epoch,
            stopped=bool(runner.train_loop.stop_training),
            hooks=self._memory.capture(),
        )

    # Resuming

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the hook's state of the checkpoint until training begins.

        Raises:
            InputError: a value of it is not what the hook writes, or the run cannot
                continue with this config.
        """
        if not runner._resume:
            return
        self._has_resumed = True
        loaded_state.check_type(checkpoint["optimizer"], runner.optim_wrapper)
        if memory.use_training_weights(runner.hooks, checkpoint):
            runner.logger.warning(
                "the checkpoint has averaged weights, and this run has no EMAHook: it "
                "continues with the weights that were trained, without the average"
            )
        if _KEY in checkpoint:
            iteration = checkpoint["meta"]["iter"]
            self._resumed = checked.state(checkpoint[_KEY], iteration, runner.model)
        else:
            runner.logger.warning(
                "the checkpoint was written without ExactResumeHook: the order of the "
                "images and the random numbers differ from those of a run without a "
                "stop"
            )
        other_best = memory.forget_other_best(runner.hooks, checkpoint)
        if other_best:
            runner.logger.warning(other_best)
        for line in self._memory.restore((self._resumed or {}).get("hooks")):
            runner.logger.warning(line)
        if self._has_known_loop:
            batch = global_batch(runner.train_dataloader)
            new_config.use(runner, checkpoint, self._resumed, self._by_epoch, batch)

    def before_train(self, runner: Runner) -> None:
        """Restore the state, listen for signals, and make a missed validation."""
        state = None
        for line in self._memory.begin():
            runner.logger.warning(line)
        if self._exact:
            if is_main_process():
                partials.remove_left(Path(runner.work_dir))
            state, self._resumed = self._resumed, None
            self._samples = position.restore(runner, state, self._by_epoch)
            if state:
                counts_on_host(runner.optim_wrapper)
                if get_rank() < len(state["random_states"]):
                    random_states.restore(state["random_states"][get_rank()])
                accumulate(runner, state["gradients"])
        if get_world_size() > 1:
            self._request.grace = GRACE_WITH_LAUNCHER
        self._request.listen()
        if state and not state["validated"] and self._is_due(runner):
            runner.logger.info("the validation that is due is made first")
            runner.val_loop.run()
        if self._has_resumed and self._has_known_loop:
            self._say_if_over(runner, state)

    def _say_if_over(self, runner: Runner, state: dict | None) -> None:
        """Log it if the resumed run trains nothing more."""
        loop = runner.train_loop
        if state and state.get("stopped"):
            loop.stop_training = not self._memory.lifted(state["hooks"])
            self._stop_is_saved = loop.stop_training
        over = ends.nothing_left(runner, self._by_epoch)
        if over is None and loop.stop_training:
            over = ends.stopped_early(runner, self._by_epoch)
        if over:
            runner.logger.warning(over)

    def _is_due(self, runner: Runner) -> bool:
        """Whether the loop would have validated where the checkpoint was written."""
        loop = runner.train_loop
        if runner.val_loop is None or (self._by_epoch and self._samples):
            return False
        done, end = loop.iter, loop.max_iters
        if self._by_epoch:
            done, end = loop.epoch, loop.max_epochs
        loop._decide_current_val_interval()
        return done >= max(loop.val_begin, 1) and (
            done % loop.val_interval == 0 or done == end
        )

    # Training

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Count the iteration's samples."""
        self._just_saved = None
        if self._exact:
            self._samples += global_batch(runner.train_dataloader)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop all processes after this iteration if one of them got a signal."""
        requested = torch.tensor(int(self._request.name is not None))
        all_reduce(requested, op="max")
        if requested:
            self._save_and_stop(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Begin the next epoch at its first sample."""
        if self._exact and self._by_epoch:
            self._samples = 0
            runner.train_loop.__dict__.pop("run_iter", None)

    def before_val_epoch(self, runner: Runner) -> None:
        """Keep the random states: a validation must not change the training."""
        self._before_validation = random_states.capture()
        self._validated_at = runner.iter

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop within a validation if there is one process.

        Several processes may be at different batches; they finish the validation.
        """
        if self._request.name and get_world_size() == 1:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # put the training weights back
                    hook.after_val_epoch(runner)
            self._validated_at = -1
            self._save_and_stop(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Restore the random states of before the validation."""
        if self._before_validation is not None:
            random_states.restore(self._before_validation)
            self._before_validation = None

    def after_train(self, runner: Runner) -> None:
        """Save a run that a hook has stopped; give signals their former effect.

        mmengine saves no checkpoint when a run stops before its last iteration.
        """
        loop = runner.train_loop
        if self._exact and loop.stop_training and not self._stop_is_saved:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook) and hook.save_last:
                    step = runner.epoch if hook.by_epoch else runner.iter
                    hook._save_checkpoint_with_step(runner, step, meta)
        self._request.forget()

    def stop_listening(self) -> None:
        """Give signals their former effect, unless one of them stops the run."""
        self._request.finish()

    def _save_and_stop(self, runner: Runner, iteration: int) -> None:
        """Write ``interrupted.pth``, unless this iteration has a checkpoint; exit."""
        file = self._just_saved or Path(runner.work_dir, FILE)
        if self._just_saved is None:
            meta = dict(epoch=runner.epoch, iter=iteration)
            runner.save_checkpoint(runner.work_dir, FILE, meta=meta, by_epoch=False)
            if is_main_process():
                with files.whole(file.with_name("last_checkpoint")) as partial:
                    partial.write_text(str(file))
        runner.logger.warning(
            f"stopped by {self._request.name or 'a signal to another process'} after "
            f"iteration {iteration}, which is saved in {file}. The same command with "
            "--resume continues the run"
        )
        self._request.finish()
        sys.exit(STOPPED)
