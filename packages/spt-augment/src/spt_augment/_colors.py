"""The arithmetic of colours on planes, as torchvision defines it: what a compiler fuses.

Everything takes and returns a tuple of planes ``(N, P)``, one per channel, ``P`` pixels in any
arrangement, and one number per row as ``(N, 1)``. :mod:`spt_augment._inplace` has the same steps
in place for when there is no compiler.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Planes = tuple[Tensor, ...]

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in a grey value (ITU-R 601-2, as torchvision rounds them)."""


class JitterProgram(NamedTuple):
    """What is fixed while a jitter is compiled.

    Attributes:
        slots: Whether there is brightness or saturation.
        contrast: Whether there is contrast.
        hue: Whether there is hue.
        hue_first: Whether hue comes before contrast.
    """

    slots: bool
    contrast: bool
    hue: bool
    hue_first: bool


def grey(planes: Planes) -> Tensor:
    """Grey values of red, green and blue."""
    r, g, b = planes
    return GREY_WEIGHTS[0] * r + GREY_WEIGHTS[1] * g + GREY_WEIGHTS[2] * b


def jitter(
    planes: Planes, numbers: Tensor, program: JitterProgram, mean: Tensor | None = None
) -> Planes:
    """Brightness, contrast, saturation and hue in an order that is data, not code.

    Only whether hue precedes contrast is fixed. Brightness and saturation sit in slots before,
    between and after those two; a slot does either of them, or nothing.

    Args:
        planes: Red, green and blue.
        numbers: ``(N, 15)``: factor and grey share of six slots, contrast factor, hue shift in
            turns, and 1 where the row is changed.
        program: What is fixed.
        mean: :func:`grey_mean` of the same, if it is known already.
    """
    cells = [numbers[:, i, None] for i in range(15)]
    out = _before_contrast(planes, cells, program)
    if program.contrast:
        out = contrast(out, cells[12], _mean(out) if mean is None else mean)
    if not program.hue_first:
        out = _slots(out, cells[4:8], program)
        out = hue(out, cells[13]) if program.hue else out
    out = _slots(out, cells[8:12], program)
    changed = cells[14] > 0.5
    return tuple(torch.where(changed, new, old) for new, old in zip(out, planes, strict=True))


def grey_mean(planes: Planes, numbers: Tensor, program: JitterProgram) -> Tensor:
    """The mean grey value that the contrast of :func:`jitter` is scaled around, ``(N, 1)``.

    On an accelerator it is a function of its own: in one with the rest, a compiler stores what
    both need and reads it again, which costs more there than to compute it twice.
    """
    cells = [numbers[:, i, None] for i in range(15)]
    return _mean(_before_contrast(planes, cells, program))


def _mean(planes: Planes) -> Tensor:
    return grey(planes).mean(-1, keepdim=True)


def _before_contrast(planes: Planes, cells: list[Tensor], program: JitterProgram) -> Planes:
    planes = _slots(planes, cells[0:4], program)
    if not program.hue_first:
        return planes
    return _slots(hue(planes, cells[13]) if program.hue else planes, cells[4:8], program)


def _slots(planes: Planes, cells: list[Tensor], program: JitterProgram) -> Planes:
    """Two of brightness (no grey share) or saturation (grey share ``1 - factor``)."""
    if not program.slots:
        return planes
    for factor, share in (cells[:2], cells[2:]):
        base = share * grey(planes)
        planes = tuple((factor * plane + base).clamp(0, 1) for plane in planes)
    return planes


def contrast(planes: Planes, factor: Tensor, mean: Tensor) -> Planes:
    """Scale the distance to each image's mean grey value."""
    base = (1 - factor) * mean
    return tuple((factor * plane + base).clamp(0, 1) for plane in planes)


def hue(planes: Planes, shift: Tensor) -> Planes:
    """Turn the hue; value and chroma stay.

    With ``v`` the hue in sixths of a turn, red is ``low + chroma * clamp(|v - 3| - 1, 0, 1)``,
    green ``high - chroma * clamp(|v - 2| - 1, 0, 1)``, and blue the same around 4.
    """
    r, g, b = planes
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    sector = torch.where(
        high == r, g - b, torch.where(high == g, b - r + 2 * chroma, r - g + 4 * chroma)
    )
    turn = sector / (6 * chroma).clamp(min=1e-20) + shift
    v = 6 * (turn - turn.floor())
    return (
        low + chroma * ((v - 3).abs() - 1).clamp(0, 1),
        high - chroma * ((v - 2).abs() - 1).clamp(0, 1),
        high - chroma * ((v - 4).abs() - 1).clamp(0, 1),
    )


def greyed(planes: Planes, chosen: Tensor) -> Planes:
    """Grey where ``chosen`` is 1."""
    value = grey(planes)
    return tuple(torch.where(chosen > 0.5, value, plane) for plane in planes)


def solarized(planes: Planes, chosen: Tensor, threshold: float) -> Planes:
    """Inverted at or above the threshold where ``chosen`` is 1."""
    return tuple(
        torch.where((chosen > 0.5) & (plane >= threshold), 1 - plane, plane) for plane in planes
    )


def normalized(planes: Planes, mean: tuple[float, ...], std: tuple[float, ...]) -> Planes:
    """Less the mean, over the standard deviation, channel by channel."""
    return tuple((plane - m) * (1 / s) for plane, m, s in zip(planes, mean, std, strict=True))
