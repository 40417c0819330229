"""Checks of arguments that several losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_floating(name: str, z: Tensor) -> None:
    """Refuse a tensor of integers or booleans.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
    """
    if not z.is_floating_point():
        raise TypeError(f"`{name}` must be of a floating-point dtype, got {z.dtype}.")


def check_rows(name: str, z: Tensor, *, at_least: int = 1) -> None:
    """Refuse a tensor that is not a floating-point batch of rows.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
        ValueError: If ``z`` is not of shape ``(N, D)`` with ``N >= at_least``.
    """
    check_floating(name, z)
    if z.ndim != 2 or len(z) < at_least or z.shape[1] < 1:
        raise ValueError(
            f"`{name}` must have shape (N, D) with N >= {at_least}, got {tuple(z.shape)}. "
            "Flatten tokens or raise the batch size."
        )


def check_same_shape(**tensors: Tensor) -> None:
    """Refuse tensors whose shapes differ from the first one's.

    Raises:
        ValueError: If a shape differs.
    """
    (first, a), *others = tensors.items()
    for name, b in others:
        if a.shape != b.shape:
            raise ValueError(
                f"`{first}` and `{name}` must have the same shape, got {tuple(a.shape)} and "
                f"{tuple(b.shape)}."
            )


def check_paired(z_i: Tensor, z_j: Tensor, *, names: tuple[str, str] = ("z_i", "z_j")) -> None:
    """Refuse two views that are not row by row of the same samples.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)`` with ``N >= 1``.
    """
    check_same_shape(**{names[0]: z_i, names[1]: z_j})
    check_rows(names[0], z_i)
    check_rows(names[1], z_j)


def check_width(name: str, z: Tensor, width: int) -> None:
    """Refuse rows of another width than the rows they are compared with.

    Raises:
        ValueError: If the last dimension of ``z`` is not ``width``.
    """
    if z.shape[-1] != width:
        raise ValueError(f"`{name}` must have width {width}, got shape {tuple(z.shape)}.")


def check_dims(name: str, z: Tensor, letters: str) -> None:
    """Refuse a tensor whose number of dimensions is not that of ``letters``.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
        ValueError: If ``z`` has another number of dimensions, or an empty one.
    """
    check_floating(name, z)
    if z.ndim != len(letters) or 0 in z.shape:
        wanted = ", ".join(letters)
        raise ValueError(
            f"`{name}` must have shape ({wanted}), none of them 0, got {tuple(z.shape)}."
        )


def check_several_rows(what: str, rows: int, *, at_least: int = 2) -> None:
    """Refuse fewer rows over all ranks than a formula needs.

    Raises:
        ValueError: If ``rows < at_least``.
    """
    if rows < at_least:
        raise ValueError(
            f"{what} needs at least {at_least} samples over all ranks, got {rows}. "
            "Raise the batch size."
        )


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not above 0.

    Raises:
        ValueError: If ``value`` is 0, negative or NaN.
    """
    if not value > 0:
        raise ValueError(f"`{name}` must be > 0, got {value}.")


def check_not_negative(**values: float) -> None:
    """Refuse numbers below 0.

    Raises:
        ValueError: If a value is negative or NaN.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, got {value}.")


def check_fraction(**values: float) -> None:
    """Refuse numbers outside ``[0, 1]``.

    Raises:
        ValueError: If a value is outside, or NaN.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must lie in [0, 1], got {value}.")


def check_count(name: str, value: int | None) -> None:
    """Refuse a number of things below 1; ``None`` passes.

    Raises:
        ValueError: If ``value < 1``.
    """
    if value is not None and value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")


def check_targets(name: str, targets: Tensor, *, rows: int, classes: int) -> None:
    """Refuse class indices of the wrong shape, dtype or range.

    The range is looked at on the CPU and outside compiled code only: elsewhere it would stall
    the device, whose own indexing checks report it.

    Raises:
        TypeError: If ``targets`` is not int64.
        ValueError: If the shape is not ``(rows,)`` or an index lies outside ``[0, classes)``.
    """
    if targets.dtype != torch.int64:
        raise TypeError(f"`{name}` must be of dtype torch.int64, got {targets.dtype}.")
    if targets.shape != (rows,):
        raise ValueError(f"`{name}` must have shape ({rows},), got {tuple(targets.shape)}.")
    if targets.device.type != "cpu" or torch.compiler.is_compiling() or not rows:
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"`{name}` must lie in [0, {classes}), the number of candidates, got values from "
            f"{low} to {high}."
        )
