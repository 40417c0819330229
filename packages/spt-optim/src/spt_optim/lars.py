"""LARS: layer-wise adaptive rate scaling.

You et al., "Large Batch Training of Convolutional Networks", 2017, Algorithm 1.
https://arxiv.org/abs/1708.03888
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


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
            for params in _alike(group["params"]):
                self._step_alike(params, group)
        return loss

    def _step_alike(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """One step over tensors of one device and dtype, all at once."""
        grads = [p.grad for p in params if p.grad is not None]
        scaled = [i for i, p in enumerate(params) if not is_excluded(p, group)]
        if scaled:
            adapted = _adapt([params[i] for i in scaled], [grads[i] for i in scaled], group)
            for i, grad in zip(scaled, adapted, strict=True):
                grads[i] = grad
        if group["momentum"]:
            grads = self._with_momentum(params, grads, group)
        torch._foreach_add_(params, grads, alpha=-group["lr"])

    def _with_momentum(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """The direction of the step, after the momentum buffers have taken the gradients."""
        momentum = group["momentum"]
        moving = [i for i, p in enumerate(params) if "momentum_buffer" in self.state[p]]
        if moving:
            old = [self.state[params[i]]["momentum_buffer"] for i in moving]
            torch._foreach_mul_(old, momentum)
            torch._foreach_add_(old, [grads[i] for i in moving], alpha=1.0 - group["dampening"])
        for p, grad in zip(params, grads, strict=True):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = grad.clone()
        buffers: list[Tensor] = [self.state[p]["momentum_buffer"] for p in params]
        if group["nesterov"]:
            return list(torch._foreach_add(grads, buffers, alpha=momentum))
        return buffers


def _alike(params: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors with a gradient, by device and dtype."""
    alike: dict[Any, list[Tensor]] = defaultdict(list)
    for p in params:
        if p.grad is not None:
            alike[p.device, p.dtype, p.grad.dtype].append(p)
    return list(alike.values())


def is_excluded(p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a tensor takes its plain gradient: by its group's word, else by its dimensions."""
    if "exclude" in group:
        return bool(group["exclude"])
    return bool(group["exclude_bias_n_norm"]) and p.ndim <= 1


def _adapt(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Decayed gradients times their trust ratios; no value leaves the device."""
    decay, eta = group["weight_decay"], group["eta"]
    decayed = list(torch._foreach_add(grads, params, alpha=decay)) if decay else grads
    weights = _norms(params)
    slopes = _norms(decayed if group["norm_of_sum"] else grads)
    total = slopes if group["norm_of_sum"] else slopes + decay * weights
    ratio = eta * weights / (total + group["eps"])
    if group["clip_lr"]:
        # at a rate of 0 the cap is what the ratio tends to
        ratio = (ratio / group["lr"]).clamp(max=1.0) if group["lr"] > 0 else torch.ones_like(ratio)
    ratio = torch.where((weights > 0) & (slopes > 0), ratio, torch.ones_like(ratio))
    return list(torch._foreach_mul(decayed, list(ratio.to(decayed[0].dtype).unbind())))


def _norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, at least in single precision."""
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))
