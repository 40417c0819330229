"""V-JEPA: predict features of masked regions, in absolute error; SALT does so from a frozen teacher.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video",
2024, section 3. https://arxiv.org/abs/2404.08471
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spt_losses._checks import check_dims, check_positive, check_same_shape
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import no_autocast, widen


def vjepa_loss(
    pred: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], *, exponent: float = 1.0
) -> Tensor:
    """Mean of ``|pred - target|^p / p``, every mask weighing the same.

    Args:
        pred: Predicted tokens of one mask, shape ``(N, M, D)``, or one such tensor per mask; masks
            may differ in ``M``.
        target: Features at the same places; detached here.
        exponent: p, above 0; 1 in the published runs.

    Returns:
        Scalar. Averaged over ranks, it is the value over the samples of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If shapes or numbers of masks differ, or ``exponent`` is not above 0.

    Ranks:
        mean over the samples of all ranks, which may differ in number; a mask keeps its size

    Example:
        >>> vjepa_loss(torch.zeros(2, 3, 4), torch.ones(2, 3, 4)).item()
        1.0
    """
    predictions = [pred] if isinstance(pred, Tensor) else list(pred)
    targets = [target] if isinstance(target, Tensor) else list(target)
    if len(predictions) != len(targets) or not predictions:
        raise ValueError(
            "`pred` and `target` must hold a tensor for each mask, got "
            f"{len(predictions)} and {len(targets)}."
        )
    check_positive("exponent", exponent)
    errors = [_of_mask(p, t, exponent) for p, t in zip(predictions, targets, strict=True)]
    return torch.stack(errors).mean() / exponent


def _of_mask(pred: Tensor, target: Tensor, exponent: float) -> Tensor:
    check_same_shape(pred=pred, target=target)
    check_dims("pred", pred, "NMD")
    check_dims("target", target, "NMD")
    with no_autocast(pred):
        error = (widen(pred) - widen(target.detach())).abs()
        if exponent != 1:
            error = error.pow(exponent)
        return mean_of_rows(error.mean((1, 2)))


class VJEPALoss(nn.Module):
    """V-JEPA's error; see :func:`vjepa_loss`.

    Args:
        exponent: Power of the error, above 0.
    """

    def __init__(self, exponent: float = 1.0) -> None:
        super().__init__()
        check_positive("exponent", exponent)
        self.exponent = exponent

    def forward(self, pred: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Loss of predictions ``(N, M, D)`` and targets, one tensor or one per mask."""
        return vjepa_loss(pred, target, exponent=self.exponent)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"exponent={self.exponent}"
