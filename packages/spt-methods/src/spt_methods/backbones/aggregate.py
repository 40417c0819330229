"""Features of any shape as one vector per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Mode = Literal["mean", "max", "cls", "flatten", "adaptive"]
MODES = ("mean", "max", "cls", "flatten", "adaptive")


class TensorAggregator(nn.Module):
    """Pool each tensor of an output by its own mode, and join what comes out.

    Tensors of 2 dimensions pass; of 3 they are tokens ``(N, T, D)``; of 4 and 5 maps ``(N, C, ...)``.

    Args:
        input_spec: One mode for all, a mode for each entry of a sequence, or a mode for each key.
        adaptive_pool_size: Side of what ``"adaptive"`` pools maps to.

    Raises:
        ValueError: If a mode is unknown, or does not fit a tensor.

    Example:
        >>> aggregate = TensorAggregator({"map": "mean", "tokens": "cls"})
        >>> aggregate({"tokens": torch.zeros(2, 5, 3), "map": torch.zeros(2, 4, 7, 7)}).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        input_spec: Mode | Sequence[Mode] | Mapping[str, Mode],
        adaptive_pool_size: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(input_spec, str):
            modes: list[str] = [input_spec]
        else:
            modes = list(input_spec.values() if isinstance(input_spec, Mapping) else input_spec)
        unknown = sorted(set(modes) - set(MODES))
        if unknown:
            raise ValueError(f"Modes must be among {list(MODES)}, got {unknown}.")
        self.input_spec = input_spec
        self.adaptive_pool_size = adaptive_pool_size

    def forward(self, inputs: Any) -> Tensor:
        """One tensor ``(N, D)`` from a tensor, a sequence, or a mapping (in the order of its keys)."""
        return torch.cat([self._one(x, mode) for x, mode in self._pairs(inputs)], dim=1)

    def compute_output_dim(self, shapes: Any) -> int:
        """The width for inputs of given shapes, without the batch: as the inputs, shapes in place."""
        if isinstance(shapes, Mapping):
            zeros: Any = {key: torch.zeros(1, *shape) for key, shape in shapes.items()}
        elif isinstance(shapes[0], int):
            zeros = torch.zeros(1, *shapes)
        else:
            zeros = [torch.zeros(1, *shape) for shape in shapes]
        return int(self(zeros).shape[1])

    def _pairs(self, inputs: Any) -> list[tuple[Tensor, str]]:
        spec: Any = self.input_spec
        if isinstance(inputs, Tensor):
            inputs = [inputs]
        if isinstance(inputs, Mapping):
            wanted = sorted(spec) if isinstance(spec, Mapping) else sorted(inputs)
            missing = [key for key in wanted if key not in inputs]
            if missing:
                raise ValueError(f"The input lacks {missing}; it holds {sorted(inputs)}.")
            by_key = spec if isinstance(spec, Mapping) else dict.fromkeys(wanted, spec)
            return [(inputs[key], by_key[key]) for key in wanted]
        modes = [spec] * len(inputs) if isinstance(spec, str) else list(spec)
        if len(modes) != len(inputs):
            raise ValueError(f"There are {len(modes)} modes and {len(inputs)} tensors.")
        return list(zip(inputs, modes, strict=True))

    def _one(self, x: Tensor, mode: str) -> Tensor:
        if x.ndim == 2 or mode == "flatten":
            return x.flatten(1)
        if x.ndim not in (3, 4, 5) or (mode == "cls" and x.ndim != 3):
            raise ValueError(f"The mode {mode!r} does not fit a tensor of shape {tuple(x.shape)}.")
        if mode == "cls":
            return x[:, 0]
        if mode == "adaptive" and x.ndim > 3:
            pool: Any = F.adaptive_avg_pool2d if x.ndim == 4 else F.adaptive_avg_pool3d
            return pool(x, self.adaptive_pool_size).flatten(1)
        if mode == "adaptive":
            return F.adaptive_avg_pool1d(x.mT, self.adaptive_pool_size).flatten(1)
        along = (1,) if x.ndim == 3 else tuple(range(2, x.ndim))
        return x.amax(along) if mode == "max" else x.mean(along)


class FeaturesConcat(nn.Module):
    """The named entries of an output, pooled and joined.

    Args:
        agg: A mode, or one for each name; see :class:`TensorAggregator`.
        names: Entries to take; all of ``agg`` (or of the output) if ``None``.
    """

    def __init__(
        self, agg: Mode | Mapping[str, Mode], names: str | Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.names = [names] if isinstance(names, str) else names
        self.aggregator = TensorAggregator(agg)

    def forward(self, inputs: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """Shape ``(N, D)``, joined in the order of the keys."""
        if self.names is not None and isinstance(inputs, Mapping):
            inputs = {name: inputs[name] for name in self.names}
        out: Tensor = self.aggregator(inputs)
        return out

    @staticmethod
    def get_output_shape(agg: Mode | Mapping[str, Mode], shapes: Any) -> tuple[int]:
        """Shape of the result for one sample, for inputs of such shapes (without the batch)."""
        return (TensorAggregator(agg).compute_output_dim(shapes),)
