"""A grid of multi-layer perceptrons, trained side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch_norm": nn.BatchNorm1d,
    "layer_norm": nn.LayerNorm,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class AutoTuneMLP(nn.Module):
    """One network for each combination of settings; settings of hidden layers are moot without any.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        hidden_features: Hidden widths to try: each a sequence, empty for a linear layer.
        name: Prefix of the keys.
        loss_fn: Of predictions and targets, to a scalar.
        additional_weight_decay: Decays, in :meth:`parameter_groups`.
        lr_scaling: Factors of the rate, in :meth:`parameter_groups`.
        normalization: Of hidden layers: ``"none"``, ``"batch_norm"``, ``"layer_norm"``.
        dropout: Shares of hidden values that are dropped.
        activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.

    Raises:
        ValueError: If a norm or an activation is unknown.

    Example:
        >>> tuned = AutoTuneMLP(4, 2, [[], [8]], "mlp", nn.MSELoss(), dropout=[0.0, 0.5])
        >>> tuned.num_variants  # one linear layer, two networks
        3
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: Sequence[Sequence[int]],
        name: str,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        additional_weight_decay: Sequence[float] = (0.0,),
        lr_scaling: Sequence[float] = (1.0,),
        normalization: Sequence[str] = ("none",),
        dropout: Sequence[float] = (0.0,),
        activation: Sequence[str] = ("relu",),
    ) -> None:
        super().__init__()
        for what, given, known in (
            ("normalization", normalization, NORMS),
            ("activation", activation, ACTIVATIONS),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown:
                raise ValueError(f"`{what}` must be among {sorted(known)}, got {unknown}.")
        self.name, self.loss_fn = name, loss_fn
        self.settings: dict[str, tuple[float, float]] = {}
        self.networks = nn.ModuleDict()
        for hidden in hidden_features:
            inner = (
                (normalization, dropout, activation) if hidden else (("none",), (0.0,), ("relu",))
            )
            grid = itertools.product(additional_weight_decay, lr_scaling, *inner)
            for decay, lr, norm, drop, act in grid:
                widths = "x".join(map(str, hidden)) or "linear"
                key = f"{name}_{widths}_wd{decay}_lr{lr}" + (
                    f"_{norm}_do{drop}_{act}" if hidden else ""
                )
                key = key.replace(".", "p")
                self.settings[key] = (float(decay), float(lr))
                self.networks[key] = _network(in_features, hidden, out_features, norm, drop, act)

    @property
    def num_variants(self) -> int:
        """How many networks there are."""
        return len(self.networks)

    def keys(self) -> list[str]:
        """Their names."""
        return list(self.networks)

    def get_variant(self, key: str) -> nn.Module:
        """A network by name.

        Raises:
            KeyError: If there is none of that name.
        """
        if key not in self.networks:
            raise KeyError(f"There is no variant {key!r}; there are {self.keys()}.")
        return self.networks[key]

    def get_best_variant(self, losses: dict[str, float]) -> str:
        """The name of the network of least loss, of those in ``losses``, by validation."""
        return min(losses, key=losses.__getitem__)

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """``pred/{key}`` of each network, and with targets ``loss/{key}``, and ``loss``, their sum."""
        out: dict[str, Tensor] = {f"pred/{key}": net(x) for key, net in self.networks.items()}
        if y is not None:
            losses = {f"loss/{key}": self.loss_fn(out[f"pred/{key}"], y) for key in self.networks}
            out.update(losses, loss=torch.stack(list(losses.values())).sum())
        return out

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group for each network, with its rate and decay; ``lr_scaling`` multiplies ``lr``."""
        return [
            {"params": list(net.parameters()), "lr": lr * factor, "weight_decay": decay}
            for net, (decay, factor) in zip(
                self.networks.values(), self.settings.values(), strict=True
            )
        ]


def _network(
    width: int, hidden: Sequence[int], out: int, norm: str, drop: float, act: str
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), NORMS[norm](size), ACTIVATIONS[act](), nn.Dropout(drop)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out))
