"""LARS: layer-wise adaptive rate scaling.

You et al., "Large Batch Training of Convolutional Networks", 2017, Algorithm 1.
https://arxiv.org/abs/1708.03888
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the norm of the weights.

    For a weight ``p`` with gradient ``g`` the step uses ``r * (g + weight_decay * p)`` with the
    trust ratio ``r = eta * |p| / (|g| + weight_decay * |p| + eps)``. Excluded tensors (biases,
    norms: at most one dimension) take the plain gradient, without decay, as in the
    recipes of BYOL, Barlow Twins and VICReg. A tensor whose weights or gradient are all zero
    is not scaled either, as there is nothing to scale to.

    Args:
        params: Parameters or parameter groups. A group may set ``"exclude": True`` or
            ``False`` to overrule what its tensors' dimensions say.
        lr: Learning rate, at least 0.
        momentum: Heavy-ball momentum, in [0, 1).
        dampening: Share of the gradient kept out of the momentum buffer.
        weight_decay: L2 penalty inside the trust ratio, at least 0.
        nesterov: Look ahead along the momentum.
        eta: Trust coefficient of the paper.
        eps: Added to the denominator of the trust ratio.
        clip_lr: Cap the layer's rate at ``lr`` (the ratio ``r / lr`` at 1), known as LARC.
        exclude_bias_n_norm: Leave tensors of at most one dimension unscaled and undecayed.

    Raises:
        ValueError: If a number is out of its range.

    Note:
        The denominator is the paper's sum of norms. The code of BYOL, Barlow Twins, VICReg and DINO
        takes the norm of the sum, ``|g + weight_decay * p|``; the two agree without decay.

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
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eta", eta)):
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
            params = [p for p in group["params"] if p.grad is not None]
            excluded = {p for p in params if is_excluded(p, group)}
            grads = [p.grad for p in params]
            scaled = [i for i, p in enumerate(params) if p not in excluded]
            if scaled:
                adapted = _adapt([params[i] for i in scaled], [grads[i] for i in scaled], group)
                for i, grad in zip(scaled, adapted, strict=True):
                    grads[i] = grad
            self._descend(params, grads, group)
        return loss

    def _descend(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Momentum, and the step itself, over all tensors of a group at once."""
        if not params:
            return
        momentum = group["momentum"]
        if momentum:
            fresh = [p for p in params if "momentum_buffer" not in self.state[p]]
            for p in fresh:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            started = set(fresh)
            gains = [1.0 if p in started else 1.0 - group["dampening"] for p in params]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, torch._foreach_mul(grads, gains))
            if group["nesterov"]:
                grads = list(torch._foreach_add(grads, buffers, alpha=momentum))
            else:
                grads = buffers
        torch._foreach_add_(params, grads, alpha=-group["lr"])


def is_excluded(p: Tensor, group: dict[str, Any]) -> bool:
    """Whether a tensor takes its plain gradient: by its group's word, else by its dimensions."""
    if "exclude" in group:
        return bool(group["exclude"])
    return bool(group["exclude_bias_n_norm"]) and p.ndim <= 1


def _adapt(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Decayed gradients times their trust ratios; no value leaves the device."""
    decay, eta = group["weight_decay"], group["eta"]
    weights = torch.stack(torch._foreach_norm(params))
    slopes = torch.stack(torch._foreach_norm(grads))
    ratio = eta * weights / (slopes + decay * weights + group["eps"])
    if group["clip_lr"]:
        # at a rate of 0 the cap is what the ratio tends to
        ratio = (ratio / group["lr"]).clamp(max=1.0) if group["lr"] > 0 else torch.ones_like(ratio)
    ratio = torch.where((weights > 0) & (slopes > 0), ratio, torch.ones_like(ratio))
    decayed = torch._foreach_add(grads, params, alpha=decay) if decay else grads
    return list(torch._foreach_mul(decayed, list(ratio.unbind())))
