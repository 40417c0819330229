"""The optimisation of a paper, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spt_optim import scale_lr


@dataclass(frozen=True)
class Recipe:
    """How a method was trained by its authors, for :class:`Method` and for the docs.

    Attributes:
        optimizer: Its name.
        lr: Rate for a global batch of ``base_batch``.
        weight_decay: At the start.
        batch: The paper's global batch.
        epochs: Of the paper's longest usual run on ImageNet.
        warmup_epochs: Of those.
        base_batch: The batch that ``lr`` is for.
        rule: How the rate grows with the batch; ``"none"``: it does not.
        weight_decay_end: At the end, on half a cosine; ``None`` keeps it.
        start_lr: Rate at the first step of the warm-up, which grows with the batch as the peak does;
            0 takes the schedule's default, a hundredth of the peak.
        end_lr: Rate at the end, whatever the batch.
        end_factor: Rate at the end over the peak, where that is what is fixed.
        augmentation: Name of the recipe of views in ``spt_data`` and ``spt_augment``.
        settings: Further arguments of the optimizer.
        options: Further keys of ``optim``; see :class:`spt_methods.optim.Entry`.
    """

    optimizer: str
    lr: float
    weight_decay: float
    batch: int
    epochs: int
    warmup_epochs: int = 0
    base_batch: int = 256
    rule: Literal["linear", "sqrt", "none"] = "linear"
    weight_decay_end: float | None = None
    start_lr: float = 0.0
    end_lr: float = 0.0
    end_factor: float = 0.0
    augmentation: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def rate(self, batch_size: int | None = None) -> float:
        """The peak rate for a global batch; for ``base_batch`` if it is not given."""
        if batch_size is None or self.rule == "none":
            return self.lr
        return scale_lr(self.lr, batch_size, base_batch_size=self.base_batch, rule=self.rule)

    def optim(self, batch_size: int | None = None) -> dict[str, Any]:
        """The ``optim`` of a :class:`Module`, with the warm-up as its share of the run.

        Args:
            batch_size: Samples per optimizer step, over all ranks and accumulated batches.

        Example:
            >>> optim = Recipe("LARS", 0.3, 1e-6, 4096, 100, warmup_epochs=10).optim(512)
            >>> optim["optimizer"]["lr"], optim["scheduler"]["peak_step"]
            (0.6, 0.1)
        """
        lr = self.rate(batch_size)
        scheduler: dict[str, Any] = {"type": "CosineAnnealingLR"}
        end = self.end_factor * lr if self.end_factor else self.end_lr
        if self.warmup_epochs:
            share = self.warmup_epochs / self.epochs
            scheduler = {"type": "LinearWarmupCosineAnnealing", "peak_step": share, "end_lr": end}
            if self.start_lr:
                scheduler["start_factor"] = self.start_lr / self.lr
        elif end:
            scheduler["eta_min"] = end
        optimizer = {"type": self.optimizer, "lr": lr, "weight_decay": self.weight_decay}
        optim: dict[str, Any] = {
            "optimizer": {**optimizer, **self.settings},
            "scheduler": scheduler,
            **self.options,
        }
        if self.weight_decay_end is not None:
            schedule = (self.weight_decay, self.weight_decay_end)
            optim["schedules"] = {**optim.get("schedules", {}), "weight_decay": schedule}
        return optim
