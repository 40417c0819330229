"""The LightningModule of this project: components, and a forward function that returns a dict."""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.memory import recursive_detach
from loguru import logger
from spt_augment import apply_gpu_transform, reject_module_gpu_transform
from spt_callbacks import TeacherStudentCallback
from spt_callbacks.training.teacher_student import find_teachers
from spt_losses.accumulation import flush_accumulated, set_accumulation
from torch import Tensor
from torch.optim import Optimizer

from spt_methods.optim import Entry, configure, horizon, normalise_optim
from spt_methods.optim.manual import Steppers
from spt_methods.optim.values import clip, scale, split_schedules, write_numbers, write_values
from spt_methods.parallel import average_whole_parameters, held_by_all_ranks, shard_children
from spt_methods.views import Stage, State, rows_in

Forward = Callable[[Any, Any, Stage], State]

DEFAULT_OPTIM = {"optimizer": "AdamW", "scheduler": "CosineAnnealingLR"}


class MissingLossError(KeyError):
    """A forward function returned no ``loss`` in training."""

    def __str__(self) -> str:
        return str(self.args[0])


class NonFiniteLossError(FloatingPointError):
    """The loss is NaN or infinite."""


class Module(pl.LightningModule):
    """Any components and a forward function ``(self, batch, stage) -> dict``.

    The forward function is called in every step with the stage ``"fit"``, ``"validate"``, ``"test"``
    or ``"predict"``. The dict it returns is the step's output: in training it holds ``loss``;
    callbacks read the rest by name.

    One optimizer is run by Lightning, so accumulation, clipping, precision and ``max_steps`` work as
    always. Several named ones share the backward pass, and each steps, clips and schedules by its own
    settings; the first counts ``global_step``.

    Args:
        forward: A function, or its dotted path; ``None`` if a subclass defines ``forward``.
        hparams: Hyper-parameters to record.
        parallelize_fn: ``(module, device_mesh)`` under FSDP2 (``ModelParallelStrategy``); by default
            each child is sharded by itself.
        **components: Attributes: modules, losses, and ``optim``. Left out, ``optim`` is AdamW with
            a cosine schedule over the run; see :func:`spt_methods.optim.normalise_optim`.

    Attributes:
        nonfinite_check_every: Optimizer steps from one look at the loss to the next; 0 never looks.

    Raises:
        TypeError: If ``forward`` cannot be called or ``optim`` is of the wrong kind.
        ValueError: If there are positional arguments, nothing is at the dotted path, ``optim`` has
            unknown keys, or a component has the name of one of the module's own methods.

    Example:
        >>> import torch
        >>> def forward(self, batch, stage):
        ...     embedding = self.backbone(batch["image"])
        ...     return {"embedding": embedding, "loss": embedding.square().mean()}
        >>> module = Module(forward=forward, backbone=torch.nn.Linear(4, 2), optim="SGD")
        >>> sorted(module({"image": torch.ones(3, 4)}, "fit"))
        ['embedding', 'loss']
    """

    nonfinite_check_every = 100

    def __init__(
        self,
        *positional: Any,
        forward: Forward | str | None = None,
        hparams: Mapping[str, Any] | None = None,
        parallelize_fn: Callable[[Any, Any], None] | None = None,
        **components: Any,
    ) -> None:
        if positional:
            raise ValueError(
                f"{type(self).__name__} takes its parts by name, got {len(positional)} positional "
                "arguments; write `Module(forward=..., backbone=...)`."
            )
        super().__init__()
        self._bind(forward)
        self.optim = components.pop("optim", DEFAULT_OPTIM)
        normalise_optim(self.optim)  # tells about mistakes here rather than in `fit`
        self.parallelize_fn = parallelize_fn
        self._steppers: Steppers | None = None
        self._restored_steps: dict[str, int] = {}
        self._entries: dict[str, Entry] = {}
        if hparams is not None:
            self.save_hyperparameters(dict(hparams))
        for name, value in components.items():
            if is_own(type(self), name):
                raise ValueError(
                    f"The component {name!r} would replace what {type(self).__name__} itself has under "
                    "that name; give it another one."
                )
            setattr(self, name, value)

    def _bind(self, forward: Forward | str | None) -> None:
        if isinstance(forward, str):
            forward = _locate(forward)
        if forward is not None and not callable(forward):
            raise TypeError(
                "`forward` must be a function of (self, batch, stage) or its dotted path, got "
                f"{type(forward).__name__}."
            )
        if forward is not None:
            if not hasattr(forward, "__name__"):  # a partial
                forward = functools.wraps(getattr(forward, "func", type(forward)))(
                    functools.partial(_call, forward)
                )
            self.forward = types.MethodType(forward, self)  # type: ignore[method-assign]

    def training_step(self, batch: Any, batch_idx: int) -> State:
        """One step; the forward function's dict, which holds ``loss``."""
        return self._after_forward(self._state(batch, "fit"), batch, batch_idx)

    @torch.compiler.disable  # a compiled step is its forward function; the rest is bookkeeping
    def _after_forward(self, state: State, batch: Any, batch_idx: int) -> State:
        loss = state.get("loss")
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = "nothing" if loss is None else describe(loss)
            raise MissingLossError(
                f"In training, {self._forward_name()} must return a scalar tensor under 'loss', got "
                f"{got}; it returned {sorted(map(str, state))}."
            )
        self._look_at(loss)
        self._log_loss(state, "fit", batch)
        if self._steppers is not None:
            self._steppers.run(loss, batch_idx, last=self.trainer.is_last_batch)
            loss = loss.detach()
        detached: State = recursive_detach(state)  # callbacks read it after the step
        return {**detached, "loss": loss}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict; its loss is logged if it has one."""
        state = self._state(batch, "validate")
        self._log_loss(state, "validate", batch)
        return state

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict; its loss is logged if it has one."""
        state = self._state(batch, "test")
        self._log_loss(state, "test", batch)
        return state

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> State:
        """The forward function's dict."""
        return self._state(batch, "predict")

    def after_manual_backward(self) -> None:
        """With several optimizers: called after backward, before anything steps."""

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the run; ``None`` if it has no end or there is no Trainer."""
        return None if self._trainer is None else horizon(self.trainer, "step")

    def _state(self, batch: Any, stage: Stage) -> State:
        try:
            state = self(batch, stage)
        except AttributeError as error:
            if error.obj is not self or hasattr(self, str(error.name)):
                raise
            raise ValueError(
                f"{self._forward_name()} needs {error.name!r}, which is none of the module's components; "
                f"give it as `{error.name}=...`, or another forward function."
            ) from error
        if not isinstance(state, Mapping):
            raise TypeError(f"{self._forward_name()} must return a dict, got {describe(state)}.")
        return dict(state)

    def _forward_name(self) -> str:
        name = getattr(self.forward, "__name__", type(self.forward).__name__)
        return f"the forward function {name!r} of {type(self).__name__}"

    def _look_at(self, loss: Tensor) -> None:
        """Wait for the device now and then, so that a run does not go on with NaN."""
        every = self.nonfinite_check_every
        if every and self.global_step % every == 0 and not bool(torch.isfinite(loss.detach())):
            raise NonFiniteLossError(
                f"The loss is {loss.item()} at step {self.global_step}. Lower the learning rate, warm "
                "it up, or clip gradients; `nonfinite_check_every = 0` turns this check off."
            )

    @torch.compiler.disable
    def _log_loss(self, state: State, stage: Stage, batch: Any) -> None:
        if "loss" in state:
            if not isinstance(state["loss"], Tensor):
                raise MissingLossError(
                    f"{self._forward_name()} must return a tensor under 'loss' if it returns one, got "
                    f"{describe(state['loss'])} in {stage!r}."
                )
            fitting = stage == "fit"
            self.log(
                f"{stage}/loss",
                state["loss"].detach(),
                on_step=fitting,
                on_epoch=True,
                prog_bar=True,
                batch_size=rows_in(batch),  # Lightning's guess warns where there are texts
                sync_dist=not fitting,  # once per epoch; in training it would be once per step
            )

    def setup(self, stage: str) -> None:
        """Choose how to optimise, before the loops look."""
        if isinstance(self.trainer.strategy, FSDPStrategy):
            raise RuntimeError(
                "FSDPStrategy (FSDP1) is not supported; use FSDP2, "
                "`lightning.pytorch.strategies.ModelParallelStrategy`."
            )
        if stage != "fit":
            return
        self._entries, _ = normalise_optim(self.optim)
        if len(self._entries) > 1 and "DeepSpeed" in type(self.trainer.strategy).__name__:
            raise RuntimeError(
                f"DeepSpeed runs one optimizer, got {list(self._entries)}; use FSDP2, "
                "`lightning.pytorch.strategies.ModelParallelStrategy`."
            )
        self._take_over_frequency()
        self._ddp_params_and_buffers_to_ignore = held_by_all_ranks(self)
        # Only now: Lightning would refuse a Trainer's own accumulation and clipping beside manual
        # optimisation, which here are the defaults of every optimizer.
        self.automatic_optimization = len(self._entries) == 1

    def _take_over_frequency(self) -> None:
        """The main optimizer's frequency is the Trainer's accumulation, so that steps agree."""
        main = next(iter(self._entries.values()), None)
        if main is None or main.frequency is None:
            return
        if self.trainer.accumulate_grad_batches not in (1, main.frequency):
            raise ValueError(
                f"`frequency` of the first optimizer is {main.frequency}, the Trainer accumulates "
                f"{self.trainer.accumulate_grad_batches} batches; give one of them, or the same."
            )
        self.trainer.accumulate_grad_batches = main.frequency

    def configure_model(self) -> None:
        """Shard under FSDP2."""
        trainer = self._trainer
        if trainer is None or not isinstance(trainer.strategy, ModelParallelStrategy):
            return
        (self.parallelize_fn or shard_children)(self, self.device_mesh)
        if not getattr(trainer.strategy, "averages_whole_parameters", False):
            average_whole_parameters(self, self.device_mesh)

    def method_callbacks(self) -> list[pl.Callback]:
        """The callbacks that belong to the module: its teachers' update, if it has any."""
        return [TeacherStudentCallback()] if find_teachers(self) else []

    def configure_callbacks(self) -> Sequence[pl.Callback]:
        """The module's callbacks, but for kinds that the user gave."""
        trainer: Any = self.trainer
        if trainer.state.fn == TrainerFn.FITTING:
            # before Lightning checks it: manual optimisation of an earlier `fit` is decided anew
            self.automatic_optimization = True
        own = self.method_callbacks()
        return [c for c in own if not any(isinstance(g, type(c)) for g in trainer.callbacks)]

    def configure_optimizers(self) -> Any:
        """The optimizers over the trainable parameters, and their schedules."""
        entries, frozen = normalise_optim(self.optim)
        if not entries:
            logger.info(f"{type(self).__name__} has no optimizer; nothing is trained.")
        return configure(self, entries, frozen)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as ``optim`` says, else as the Trainer."""
        entry = next(iter(self._entries.values()))
        sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
        if entry.gradient_clip_val is None and not sharded:  # Lightning's cannot mix the gradients
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self._clip(optimizer, entry)

    def _clip(self, optimizer: Any, entry: Entry) -> None:
        value, algorithm = entry.gradient_clip_val, entry.gradient_clip_algorithm
        if value is None:
            value = self.trainer.gradient_clip_val
            algorithm = self.trainer.gradient_clip_algorithm or "norm"  # type: ignore[assignment]
        if value:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            clip(parameters, value, str(algorithm))  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Refuse a ``gpu_transform`` on the module; make queues and several optimizers ready."""
        reject_module_gpu_transform(self)
        # here too, since a run that goes on inside an epoch does not start that epoch
        set_accumulation(self, self.trainer.accumulate_grad_batches)
        self._steppers = None
        if self.global_step == 0:
            self._restored_steps = {}
        if len(self._entries) > 1:
            self._steppers = Steppers(self, self._entries)
            self._steppers.load_state_dict(self._restored_steps)

    def on_train_end(self) -> None:
        """Keep the counts, for a Trainer that fits further."""
        if self._steppers is not None:
            self._restored_steps = self._steppers.state_dict()

    def on_train_epoch_start(self) -> None:
        """Tell queues and centres how many batches make a step."""
        set_accumulation(self, self.trainer.accumulate_grad_batches)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close an epoch's shorter last step in queues and centres."""
        if self.trainer.accumulate_grad_batches > 1 and self.trainer.is_last_batch:
            flush_accumulated(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Log the learning rates; write this step's scheduled numbers of the module."""
        optimizers = self.trainer.optimizers
        names = [""] if len(optimizers) == 1 else [f"_{name}" for name in self._entries]
        for name, optimizer in zip(names, optimizers, strict=False):
            if optimizer.param_groups:
                self.log(f"hparams/lr{name}", optimizer.param_groups[0]["lr"], on_step=True)
        if not any(entry.schedules for entry in self._entries.values()):
            return
        for optimizer in optimizers:
            entry, step, total = self._progress(optimizer)
            if entry.schedules:
                _, numbers = split_schedules(self, optimizer, entry.schedules)
                write_numbers(self, numbers, step, total)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Write this step's scheduled values; clip, with several optimizers."""
        entry, step, total = self._progress(optimizer)
        if self._steppers is None:
            self._full_window(optimizer)
        else:
            self._clip(optimizer, entry)
        if entry.schedules:
            values, _ = split_schedules(self, optimizer, entry.schedules)
            write_values(optimizer, values, step, total)

    def _progress(self, optimizer: Any) -> tuple[Entry, int, int]:
        """An optimizer's settings, its steps so far, and those of the run (0 if no schedule asks).

        Raises:
            ValueError: If a schedule follows a run that has no end.
        """
        if self._steppers is None:
            entry, step = next(iter(self._entries.values())), self.global_step
            total = self.total_steps if entry.schedules else 0
        else:
            stepper = self._steppers.of(optimizer)
            entry, step, total = stepper.entry, stepper.steps, stepper.total
        if entry.schedules and total is None:
            raise ValueError(
                f"{sorted(entry.schedules)} follow the run, which has no end: set `max_steps` or "
                "`max_epochs`."
            )
        return entry, step, total or 0

    def _full_window(self, optimizer: Optimizer) -> None:
        """Average an epoch's shorter last window by its own number of batches.

        Lightning divides each loss by the full number.
        """
        full = self.trainer.accumulate_grad_batches
        count = self.trainer.fit_loop.batch_idx % full + 1
        if count < full:
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            grads = [p.grad for p in parameters if p.grad is not None]
            scale(grads, full / count)

    def on_train_epoch_end(self) -> None:
        """With several optimizers: the schedulers that count epochs."""
        if self._steppers is not None:
            self._steppers.epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the steps of several optimizers."""
        if self._steppers is not None:
            checkpoint["optimizer_steps"] = self._steppers.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint's steps."""
        self._restored_steps = checkpoint.get("optimizer_steps", {})

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply the ``gpu_transform`` of the data."""
        return apply_gpu_transform(self, batch, dataloader_idx)


def is_own(kind: type, name: str) -> bool:
    """Whether a name is that of a method, or of a property that cannot be set.

    Example:
        >>> [is_own(pl.LightningModule, name) for name in ("setup", "device", "backbone")]
        [True, True, False]
    """
    held = inspect.getattr_static(kind, name, None)
    fixed = isinstance(held, property) and held.fset is None
    return fixed or inspect.isroutine(held)


def describe(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _call(forward: Any, *args: Any, **kwargs: Any) -> Any:
    return forward(*args, **kwargs)


def _locate(path: str) -> Forward:
    module, _, name = path.rpartition(".")
    try:
        found: Forward = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"There is no forward function at {path!r}: {error}.") from error
    return found
