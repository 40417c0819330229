"""Networks around a network: frozen, with hooks, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class EvalOnly(nn.Module):
    """A frozen network that stays in evaluation mode; its attributes are reachable from here.

    Args:
        backbone: Frozen in place.

    Raises:
        RuntimeError: In use, if somebody has switched the network itself to training.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> EvalOnly:
        """Does nothing to the network."""
        self.training = mode
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("backbone"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output."""
        if self.backbone.training:
            raise RuntimeError(
                f"{type(self.backbone).__name__} inside EvalOnly is in training mode; leave it in "
                "evaluation mode, or take it out of EvalOnly."
            )
        return self.backbone(*args, **kwargs)


class HiddenStateExtractor(nn.Module):
    """A network that also returns what some of its parts return.

    Args:
        backbone: The network.
        module_names: Names of its submodules.

    Raises:
        ValueError: If there is no such submodule.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> out = HiddenStateExtractor(net, ["0"])(torch.zeros(1, 2))
        >>> out["hidden_states"]["0"].shape
        torch.Size([1, 3])
    """

    def __init__(self, backbone: nn.Module, module_names: Sequence[str]) -> None:
        super().__init__()
        known = dict(backbone.named_modules())
        missing = [name for name in module_names if name not in known]
        if missing:
            children = [name for name, _ in backbone.named_children()]
            raise ValueError(
                f"{type(backbone).__name__} has no submodules {missing}; its children are {children}."
            )
        self.backbone = backbone
        self._caught: dict[str, Any] = {}
        self._handles = [
            known[name].register_forward_hook(self._catcher(name)) for name in module_names
        ]

    def _catcher(self, name: str) -> Any:
        def catch(module: nn.Module, inputs: Any, output: Any) -> None:
            self._caught[name] = output

        return catch

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """``last_hidden_state``, the network's output, and ``hidden_states`` by name."""
        self._caught.clear()
        output = self.backbone(*args, **kwargs)
        caught, self._caught = self._caught, {}
        return {"last_hidden_state": output, "hidden_states": caught}

    def remove_hooks(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class ImageToVideoEncoder(nn.Module):
    """Encode videos ``(B, T, C, H, W)`` frame by frame, all frames in one batch.

    Args:
        encoder: From images ``(M, C, H, W)`` to ``(M, D)``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, videos: Tensor) -> Tensor:
        """Features ``(B, T, D)``."""
        features: Tensor = self.encoder(videos.flatten(0, 1))
        return features.unflatten(0, videos.shape[:2])


class EMA(nn.Module):
    """A running mean of tensors, ``alpha * new + (1 - alpha) * old``, a buffer.

    Args:
        alpha: Weight of the new, in [0, 1].

    Raises:
        ValueError: If ``alpha`` is out of range.
    """

    item: Tensor | None

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"`alpha` must be in [0, 1], got {alpha}.")
        self.alpha = alpha
        self.register_buffer("item", None)

    def forward(self, x: Tensor) -> Tensor:
        """The mean including ``x``; the first time ``x`` itself."""
        mean = x if self.item is None else self.alpha * x + (1 - self.alpha) * self.item
        self.item = mean.detach()
        return mean

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}item")
        if saved is not None and self.item is None:
            self.item = saved.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
