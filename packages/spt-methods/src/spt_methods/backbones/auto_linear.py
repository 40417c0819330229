"""A grid of linear classifiers, trained side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.probes import Pooling, pooled

Normalization = Literal["none", "norm", "bn"]


@dataclass(frozen=True)
class Variant:
    """The settings of one classifier of a grid."""

    weight_decay: float
    lr_scaling: float
    normalization: Normalization
    dropout: float
    label_smoothing: float

    @property
    def key(self) -> str:
        """A name without dots that tells it from all others."""
        numbers = (self.weight_decay, self.lr_scaling, self.dropout, self.label_smoothing)
        decay, lr, dropout, smoothing = (repr(float(n)).replace(".", "p") for n in numbers)
        return f"wd{decay}_lr{lr}_{self.normalization}_do{dropout}_ls{smoothing}"


class AutoLinearClassifier(nn.Module):
    """Every combination of settings as a linear classifier, all in one batched product.

    Rates and decays are those of parameter groups, see :meth:`parameter_groups`.

    Args:
        name: Prefix of what is logged.
        embedding_dim: Width of the features.
        num_classes: Classes.
        pooling: What to do with tokens.
        weight_decay: Decays.
        lr_scaling: Factors of the rate.
        normalization: Of the features: none, LayerNorm or BatchNorm, without learned parameters.
        dropout: Shares of features that are dropped.
        label_smoothing: Smoothings, over the number of classes.

    Attributes:
        variants: Settings of the classifiers.

    Example:
        >>> grid = AutoLinearClassifier("probe", 8, 3, dropout=[0], label_smoothing=[0])
        >>> len(grid.variants), grid(torch.randn(4, 8), torch.tensor([0, 1, 2, 0])).shape
        (3, torch.Size([]))
    """

    def __init__(
        self,
        name: str,
        embedding_dim: int,
        num_classes: int,
        pooling: Pooling | None = None,
        weight_decay: Sequence[float] = (0.0,),
        lr_scaling: Sequence[float] = (1.0,),
        normalization: Sequence[Normalization] = ("none", "norm", "bn"),
        dropout: Sequence[float] = (0.0, 0.5),
        label_smoothing: Sequence[float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        unknown = sorted(set(normalization) - {"none", "norm", "bn"})
        if unknown:
            raise ValueError(f"`normalization` must hold 'none', 'norm' or 'bn', got {unknown}.")
        self.name, self.num_classes, self.pooling = name, num_classes, pooling
        grid = itertools.product(weight_decay, lr_scaling, normalization, dropout, label_smoothing)
        self.variants = [Variant(*settings) for settings in grid]
        self.bn = nn.BatchNorm1d(embedding_dim, affine=False)
        bound = embedding_dim**-0.5
        self.weights = nn.ParameterList(
            torch.empty(num_classes, embedding_dim).uniform_(-bound, bound) for _ in self.variants
        )
        self.biases = nn.ParameterList(torch.zeros(num_classes) for _ in self.variants)

    def logits(self, x: Tensor) -> Tensor:
        """Logits ``(variants, N, classes)`` of features ``(N, D)`` or tokens ``(N, T, D)``."""
        x = pooled(x, self.pooling)
        kinds = {v.normalization for v in self.variants}
        made = {"none": x}
        made.update({"norm": F.layer_norm(x, x.shape[1:])} if "norm" in kinds else {})
        made.update({"bn": self.bn(x)} if "bn" in kinds else {})
        inputs = torch.stack(
            [F.dropout(made[v.normalization], v.dropout, self.training) for v in self.variants]
        )
        weights = torch.stack(list(self.weights))
        return torch.baddbmm(torch.stack(list(self.biases))[:, None], inputs, weights.mT)

    def forward(self, x: Tensor, y: Tensor | None = None, pl_module: Any = None) -> Tensor:
        """The sum of all classifiers' losses; without labels their logits.

        Args:
            x: Features ``(N, D)`` or tokens ``(N, T, D)``; detached here.
            y: Labels ``(N,)``.
            pl_module: Where to log ``train/{name}_{key}`` and ``eval/{name}_{key}_top1``.
        """
        logits = self.logits(x.detach())
        if y is None:
            return logits
        losses = [
            F.cross_entropy(z, y, label_smoothing=v.label_smoothing / self.num_classes)
            for z, v in zip(logits, self.variants, strict=True)
        ]
        if pl_module is not None:
            self._log(pl_module, losses, (logits.argmax(2) == y).float().mean(1))
        return torch.stack(losses).sum()

    def _log(self, pl_module: Any, losses: list[Tensor], accuracies: Tensor) -> None:
        for variant, loss, accuracy in zip(self.variants, losses, accuracies, strict=True):
            key = f"{self.name}_{variant.key}"
            if self.training:
                pl_module.log(f"train/{key}", loss.detach(), on_step=True)
            else:
                pl_module.log(f"eval/{key}_top1", accuracy, on_epoch=True, sync_dist=True)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group for each classifier, with its rate and decay.

        Args:
            lr: The rate that ``lr_scaling`` multiplies.
        """
        return [
            {"params": [w, b], "lr": lr * v.lr_scaling, "weight_decay": v.weight_decay}
            for v, w, b in zip(self.variants, self.weights, self.biases, strict=True)
        ]
