"""Weight decay that follows the step, as DINO trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import lightning as pl
from spt_optim import cosine_value, linear_value
from torch.optim import Optimizer

from spt_callbacks.training.steps import total_steps

Schedule = Literal["constant", "linear", "cosine", "exponential"]


def scheduled_weight_decay(schedule: Schedule, progress: float, start: float, end: float) -> float:
    """The decay at a fraction of the run.

    Args:
        schedule: Its form.
        progress: Steps done over all steps, in [0, 1].
        start: Value at 0.
        end: Value at 1.

    Example:
        >>> round(scheduled_weight_decay("linear", 0.5, 0.04, 0.4), 9)
        0.22
    """
    if schedule == "constant":
        return start
    if schedule == "exponential":
        return float(start * (end / start) ** progress)
    curve = cosine_value if schedule == "cosine" else linear_value
    return curve(progress, 1.0, start, end)


class WeightDecayUpdater(pl.Callback):
    """Write each parameter group's weight decay before every optimizer step.

    Groups without decay (biases, norms) stay without. Groups whose decays differ keep their
    ratios: the largest follows the schedule from ``start_value`` to ``end_value``. Each
    optimizer counts its own steps.

    Args:
        schedule_type: ``"constant"``, ``"linear"``, ``"cosine"`` (DINO, section 3.2 of
            https://arxiv.org/abs/2104.14294: 0.04 to 0.4) or ``"exponential"``.
        start_value: Decay at the first step, at least 0.
        end_value: Decay at the run's end, at least 0; above 0 for ``"exponential"``.
        param_group_indices: Groups to change; all that decay if ``None``.
        opt_idx: Optimizer to change, by its place in ``trainer.optimizers``; all if ``None``.
        verbose: Log ``hparams/weight_decay``.

    Raises:
        ValueError: If an argument is out of its range; in ``fit``, if an index does not exist.
    """

    def __init__(
        self,
        schedule_type: Schedule = "cosine",
        start_value: float = 0.01,
        end_value: float = 0.0,
        param_group_indices: Sequence[int] | None = None,
        opt_idx: int | None = None,
        verbose: bool | None = None,
    ) -> None:
        if schedule_type not in get_args(Schedule):
            raise ValueError(
                f"`schedule_type` must be one of {list(get_args(Schedule))}, got {schedule_type!r}."
            )
        if start_value < 0 or end_value < 0:
            raise ValueError(
                f"`start_value` and `end_value` must be >= 0, got {start_value} and {end_value}."
            )
        if schedule_type == "exponential" and not (start_value > 0 and end_value > 0):
            raise ValueError(
                "An exponential schedule needs `start_value` and `end_value` > 0, got "
                f"{start_value} and {end_value}; use 'cosine' to end at 0."
            )
        self.schedule_type = schedule_type
        self.start_value = start_value
        self.end_value = end_value
        self.param_group_indices = param_group_indices
        self.opt_idx = opt_idx
        self.verbose = verbose
        self._steps: dict[int, int] | None = None
        self._total = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the indices against the optimizers, and learn the run's length."""
        self._total = total_steps(trainer, "WeightDecayUpdater")
        number = len(trainer.optimizers)
        if self.opt_idx is not None and not 0 <= self.opt_idx < number:
            raise ValueError(f"`opt_idx` must be in [0, {number}), got {self.opt_idx}.")
        if self._steps is None:
            self._steps = dict.fromkeys(range(number), trainer.global_step)
        for index in self._watched(number):
            groups = len(trainer.optimizers[index].param_groups)
            wrong = [i for i in self.param_group_indices or () if not 0 <= i < groups]
            if wrong:
                raise ValueError(
                    f"`param_group_indices` {wrong} do not exist: optimizer {index} has {groups} "
                    "groups."
                )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Write this step's values."""
        bare = getattr(optimizer, "optimizer", optimizer)
        index = next(i for i, o in enumerate(trainer.optimizers) if o is bare or o is optimizer)
        if index not in self._watched(len(trainer.optimizers)):
            return
        steps = self._steps if self._steps is not None else {}
        step = steps.get(index, 0)
        steps[index] = step + 1
        progress = min(step / self._total, 1.0)
        value = scheduled_weight_decay(
            self.schedule_type, progress, self.start_value, self.end_value
        )
        self._write(bare, value)
        if self.verbose:
            pl_module.log("hparams/weight_decay", value)

    def _watched(self, number: int) -> Sequence[int]:
        return range(number) if self.opt_idx is None else (self.opt_idx,)

    def _write(self, optimizer: Optimizer, value: float) -> None:
        groups = optimizer.param_groups
        chosen = (
            groups
            if self.param_group_indices is None
            else [groups[i] for i in self.param_group_indices]
        )
        for group in chosen:  # as `initial_lr` of torch's schedulers, saved with the optimizer
            group.setdefault("initial_weight_decay", group.get("weight_decay", 0.0))
        largest = max((group["initial_weight_decay"] for group in chosen), default=0.0)
        for group in chosen:
            if group["initial_weight_decay"] > 0:
                group["weight_decay"] = value * (group["initial_weight_decay"] / largest)

    def state_dict(self) -> dict[str, Any]:
        """Steps of each optimizer."""
        return {} if self._steps is None else {"steps": dict(self._steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's counts."""
        self._steps = dict(state_dict["steps"]) if "steps" in state_dict else None
