"""A run that is stopped goes on as if it had not been."""

import functools
import sys
from pathlib import Path

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    all_reduce_params,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

from convnext_dense.errors import STOPPED
from convnext_dense.utils import files
from convnext_dense.utils.distributed import bare

from . import random_states
from .other_batch import adapt
from .signals import StopRequest
from .stream import Endless, seeded

FILE = "interrupted.pth"
_KEY = "exact_resume"  # in a checkpoint


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes training that was killed, and goes on by ``resume=True``, end with the
    weights and the logged values of one that was not: bit for bit, where the
    arithmetic is (CPU; GPUs with ``randomness.deterministic``).

    ``tools/train.py`` adds it to every run; in another project,
    ``custom_hooks = [dict(type='ExactResumeHook')]``. What mmengine's checkpoints
    lack is added to them: the states of all random generators of each process, the
    place in the data (see ``stream``), accumulated gradients, and whether the
    validation that is due has been made. It may be another number of processes
    that goes on.

    On SIGTERM or Ctrl-C the iteration is finished, ``interrupted.pth`` written, and
    the process ends with exit code 75; ``resume=True`` finds that file.
    """

    # Last: what other hooks do when training starts is over when random states are
    # restored and a missed validation is made up for.
    priority = "LOWEST"

    def __init__(self):
        self._request = StopRequest()
        self._resumed: dict | None = None
        self._samples = 0  # of all processes: of this epoch, or, without epochs, ever
        self._saved: dict = {}
        self._just_saved: Path | None = None  # a checkpoint of where the run is
        self._validated_at = -1  # iteration
        self._before_validation: dict | None = None  # random states
        self._exact = False

    def before_run(self, runner: Runner) -> None:
        loop = runner._train_loop
        if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
            return  # testing, or a loop that only its author knows
        self._by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self._exact = hasattr(loop.dataloader.batch_sampler, "sampler")
        if not self._exact:
            runner.logger.warning(
                "the training data comes without a batch sampler: a run that goes on "
                "will see its images in another order"
            )
            return
        seed = [runner.seed]
        broadcast_object_list(seed)
        loop.dataloader = seeded(loop.dataloader, seed[0])
        runner.save_checkpoint = self._with_states(runner, runner.save_checkpoint)

    # Saving

    def _with_states(self, runner: Runner, save):
        """``save``, which all processes call, after what each has to add."""

        @functools.wraps(save)
        def save_with_states(out_dir, filename, *args, **kwargs):
            states = all_gather_object(
                self._before_validation or random_states.capture()
            )
            self._saved = dict(random_states=states, gradients=_accumulated(runner))
            save(out_dir, filename, *args, **kwargs)
            if filename != FILE and kwargs.get("save_optimizer"):
                self._just_saved = Path(out_dir, filename)
                if is_main_process():  # that one is behind now
                    Path(runner.work_dir, FILE).unlink(missing_ok=True)

        return save_with_states

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not self._exact or "optimizer" not in checkpoint:
            return  # weights only: nobody goes on from them
        at = checkpoint["meta"]["iter"]
        loader = runner.train_dataloader
        checkpoint[_KEY] = dict(
            self._saved,
            # Between epochs none of the next is seen.
            samples=0 if self._by_epoch and at == runner.iter else self._samples,
            batch=_global_batch(loader),
            seed=loader.dataset.seed,
            sampler_seed=getattr(loader.batch_sampler.sampler, "seed", None),
            validated=self._validated_at == at,
        )

    # Resuming

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._resumed = checkpoint.get(_KEY)
            if self._resumed is None:
                runner.logger.warning(
                    "the checkpoint was written without ExactResumeHook: images come "
                    "in another order, and random numbers are others, than they would"
                )

    def before_train(self, runner: Runner) -> None:
        if self._exact:
            if is_main_process():
                files.remove_partials(Path(runner.work_dir))
            state, self._resumed = self._resumed, None
            self._go_on(runner, state)
        self._request.listen()
        if self._exact and state and not state["validated"] and self._is_due(runner):
            runner.logger.info("the validation that is due is made first")
            runner.val_loop.run()

    def _go_on(self, runner: Runner, state: dict | None) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        batch = _global_batch(loader)
        if state:
            self._samples = state["samples"]
            loader.dataset.__dict__["seed"] = state["seed"]
            if state["sampler_seed"] is not None:
                loader.batch_sampler.sampler.inner.seed = state["sampler_seed"]
            if get_rank() < len(state["random_states"]):
                random_states.restore(state["random_states"][get_rank()])
            _accumulate(runner, state["gradients"])
        elif not self._by_epoch:  # the checkpoint, if any, is of somebody else
            self._samples = loop.iter * batch
        batches = self._samples // batch
        if not self._by_epoch:
            loop.fast_forward_on_resume = False
            eager = getattr(loop.dataloader_iterator, "_iterator", None)
            if hasattr(eager, "_shutdown_workers"):  # mmengine's have begun to load
                eager._shutdown_workers()
            loop.dataloader_iterator = Endless(loader, batches, loop.iter)
        elif batches:
            loader.batch_sampler.first = batches
            # The loop counts from 0 what a loader yields.
            run_iter = loop.run_iter
            loop.run_iter = lambda index, batch: run_iter(index + batches, batch)
        if state and state["batch"] != batch:
            adapt(runner, state["batch"], batch, batches)

    def _is_due(self, runner: Runner) -> bool:
        """Whether the loop would have validated where it was left."""
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

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None):
        self._just_saved = None
        if self._exact:  # a checkpoint of this iteration has it behind it
            self._samples += _global_batch(runner.train_dataloader)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        asked = torch.tensor(int(self._request.name is not None))
        all_reduce(asked, op="max")  # they stop after the same iteration
        if asked:
            self._save_and_stop(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if self._exact and self._by_epoch:
            self._samples = 0
            runner.train_loop.__dict__.pop("run_iter", None)

    def before_val_epoch(self, runner: Runner) -> None:
        # Whether or not a run validated must not matter to what it draws afterwards.
        self._before_validation = random_states.capture()
        self._validated_at = runner.iter

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        # Other processes may be at another batch: they all finish the validation.
        if self._request.name and get_world_size() == 1:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # its weights were being validated
                    hook.after_val_epoch(runner)
            self._validated_at = -1
            self._save_and_stop(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        random_states.restore(self._before_validation)
        self._before_validation = None

    def after_train(self, runner: Runner) -> None:
        self._request.forget()

    def _save_and_stop(self, runner: Runner, iteration: int) -> None:
        file = self._just_saved or Path(runner.work_dir, FILE)
        if self._just_saved is None:
            meta = dict(epoch=runner.epoch, iter=iteration)
            runner.save_checkpoint(runner.work_dir, FILE, meta=meta, by_epoch=False)
            if is_main_process():
                with files.whole(file.with_name("last_checkpoint")) as partial:
                    partial.write_text(str(file))
        runner.logger.warning(
            f"stopped by {self._request.name or 'a signal to another process'} after "
            f"iteration {iteration}, which is in {file}; the same command with "
            "--resume goes on"
        )
        sys.exit(STOPPED)


def _global_batch(loader: DataLoader) -> int:
    """Images of a step, of all processes; or, of no fixed number, the processes."""
    size = getattr(loader.batch_sampler, "batch_size", None)
    return get_world_size() * (size if isinstance(size, int) else 1)


def _accumulated(runner: Runner) -> dict[str, torch.Tensor]:
    """Gradients by parameter in the middle of an accumulation; the processes' mean,
    which is what the step will take."""
    wrapper = runner.optim_wrapper
    model = runner.model
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return {}
    if isinstance(model, FullyShardedDataParallel):
        runner.logger.warning("this checkpoint lacks the gradients accumulated so far")
        return {}
    gradients = {
        name: parameter.grad.detach().clone()
        for name, parameter in bare(model).named_parameters()
        if parameter.grad is not None
    }
    all_reduce_params(gradients.values(), op="mean")
    return {name: gradient.cpu() for name, gradient in gradients.items()}


def _accumulate(runner: Runner, gradients: dict[str, torch.Tensor]) -> None:
    for name, parameter in bare(runner.model).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
