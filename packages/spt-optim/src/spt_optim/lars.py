"""LARS: layer-wise adaptive rate scaling.

You et al., "Large Batch Training of Convolutional Networks", 2017, Algorithm 1.
https://arxiv.org/abs/1708.03888
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

CACHED_ELEMENTS = 2**16
"""Elements that a CPU handles at once: a portion, its gradient and its buffer stay in the cache."""


class LARS(Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the norm of the weights.

    For a weight ``p`` with gradient ``g`` the step uses ``r * (g + weight_decay * p)`` with the
    trust ratio ``r = eta * |p| / (|g| + weight_decay * |p| + eps)``. Excluded tensors (biases,
    norms: at most one dimension, or marked by their group) take the plain gradient, without
    decay, as in the recipes of BYOL, Barlow Twins and VICReg.

    Args:
        params: Parameters or parameter groups. A group may set ``"exclude": True`` or
            ``False`` to overrule what its tensors' dimensions say; ``create_optimizer`` does so
            from the types of the layers when it is given the module.
        lr: Learning rate, at least 0.
        momentum: Heavy-ball momentum, in [0, 1).
        dampening: Share of the gradient kept out of the momentum buffer.
        weight_decay: L2 penalty inside the trust ratio, at least 0. Tensors without decay are
            scaled all the same; only excluded ones are not.
        nesterov: Look ahead along the momentum.
        eta: Trust coefficient of the paper.
        eps: Added to the denominator of the trust ratio.
        clip_lr: Cap the layer's rate at ``lr`` (the ratio ``r / lr`` at 1), known as LARC.
        exclude_bias_n_norm: Leave tensors of at most one dimension unscaled and undecayed.
        norm_of_sum: Take ``|g + weight_decay * p|`` in the denominator.

    Raises:
        ValueError: If a number is out of its range.

    Note:
        The denominator is the paper's sum of norms. The code of BYOL, Barlow Twins, VICReg and DINO
        takes the norm of the sum; ``norm_of_sum=True, eps=0`` reproduces it, and the two agree
        without decay. Where the weights are all zero the paper's step would be zero for ever;
        all of that code takes a ratio of 1 there until the first step has been made, and so
        does this class.

    Example:
        >>> layer = torch.nn.Linear(4, 2)
        >>> optimizer = LARS(layer.parameters(), lr=0.3, weight_decay=1e-6)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eta: float = 1e-3,
        eps: float = 1e-8,
        clip_lr: bool = False,
        exclude_bias_n_norm: bool = True,
        norm_of_sum: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eta", eta), ("eps", eps)):
            if not value >= 0:
                raise ValueError(f"`{name}` must be >= 0, got {value}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1), got {momentum}.")
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(
                "Nesterov needs `momentum` > 0 and `dampening` = 0, got "
                f"momentum={momentum} and dampening={dampening}."
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "eta": eta,
            "eps": eps,
            "clip_lr": clip_lr,
            "exclude_bias_n_norm": exclude_bias_n_norm,
            "norm_of_sum": norm_of_sum,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params, excluded, fresh in self._portions_of(group):
                grads = [p.grad for p in params if p.grad is not None]
                ratios = None if excluded else _trust_ratios(params, grads, group)
                self._descend(params, grads, ratios, fresh, group)
        return loss

    def _portions_of(self, group: dict[str, Any]) -> Iterator[tuple[list[Tensor], bool, bool]]:
        """The tensors with a gradient: alike in device and dtype, excluded or not, fresh or not."""
        alike: dict[Any, list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                fresh = "momentum_buffer" not in self.state.get(p, {})
                alike[is_excluded(p, group), fresh, p.device, p.dtype].append(p)
        for (excluded, fresh, device, _), params in alike.items():
            for portion in _portions(params) if device.type == "cpu" else [params]:
                yield portion, excluded, fresh

    def _descend(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        ratios: list[Tensor] | None,
        fresh: bool,
        group: dict[str, Any],
    ) -> None:
        """Momentum, and the step itself, over tensors that are alike."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if not momentum:
            _add(params, params, grads, ratios, decay, -lr)
            return
        if fresh:
            for p in params:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, momentum)
        _add(buffers, params, grads, ratios, decay, 1.0 if fresh else 1.0 - group["dampening"])
        if group["nesterov"]:
            _add(params, params, grads, ratios, decay, -lr)
            torch._foreach_add_(params, buffers, alpha=-lr * momentum)
        else:
            torch._foreach_add_(params, buffers, alpha=-lr)


def _add(
    targets: list[Tensor],
    params: list[Tensor],
    grads: list[Tensor],
    ratios: list[Tensor] | None,
    decay: float,
    gain: float,
) -> None:
    """Add ``gain * ratio * (grad + decay * param)`` to the targets, which may be the parameters.

    Excluded tensors have no ratio and no decay.
    """
    if ratios is None:
        torch._foreach_add_(targets, grads, alpha=gain)
        return
    if decay:
        torch._foreach_addcmul_(targets, params, ratios, value=gain * decay)
    torch._foreach_addcmul_(targets, grads, ratios, value=gain)


def _portions(tensors: list[Tensor], elements: int = CACHED_ELEMENTS) -> list[list[Tensor]]:
    """Neighbours together as long as they have no more than so many elements."""
    portions: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if portions[-1] and filled + tensor.numel() > elements:
            portions.append([])
            filled = 0
        portions[-1].append(tensor)
        filled += tensor.numel()
    return portions


def is_excluded(p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a tensor takes its plain gradient: by its group's word, else by its dimensions."""
    if "exclude" in group:
        return bool(group["exclude"])
    return bool(group["exclude_bias_n_norm"]) and p.ndim <= 1


def _trust_ratios(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """One scalar tensor per parameter; no value leaves the device."""
    decay = group["weight_decay"]
    weights, slopes = _norms(params), _norms(grads)
    total = slopes + decay * weights
    if group["norm_of_sum"] and decay:
        total = slopes = _norms(list(torch._foreach_add(grads, params, alpha=decay)))
    ratio = group["eta"] * weights / (total + group["eps"])
    if group["clip_lr"]:
        # at a rate of 0 the cap is what the ratio tends to
        ratio = (ratio / group["lr"]).clamp(max=1.0) if group["lr"] > 0 else torch.ones_like(ratio)
    ratio = torch.where((weights > 0) & (slopes > 0), ratio, torch.ones_like(ratio))
    return list(ratio.to(params[0].dtype).unbind())


def _norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, at least in single precision."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))
