"""Checks of arguments that several losses share."""

from __future__ import annotations

from torch import Tensor


def check_rows(name: str, z: Tensor, *, at_least: int = 1) -> None:
    """Refuse a tensor that is not a floating-point batch of rows.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
        ValueError: If ``z`` is not of shape ``(N, D)`` with ``N >= at_least``.
    """
    if not z.is_floating_point():
        raise TypeError(f"`{name}` must be of a floating-point dtype, got {z.dtype}.")
    if z.ndim != 2 or len(z) < at_least or z.shape[1] < 1:
        raise ValueError(
            f"`{name}` must have shape (N, D) with N >= {at_least}, got {tuple(z.shape)}. "
            "Flatten tokens or raise the batch size."
        )


def check_paired(z_i: Tensor, z_j: Tensor, *, at_least: int = 1) -> None:
    """Refuse two views that are not row by row of the same samples.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)`` with ``N >= at_least``.
    """
    if z_i.shape != z_j.shape:
        raise ValueError(
            f"`z_i` and `z_j` must have the same shape, got {tuple(z_i.shape)} and "
            f"{tuple(z_j.shape)}."
        )
    check_rows("z_i", z_i, at_least=at_least)
    check_rows("z_j", z_j, at_least=at_least)


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not above 0.

    Raises:
        ValueError: If ``value`` is 0, negative or NaN.
    """
    if not value > 0:
        raise ValueError(f"`{name}` must be > 0, got {value}.")
