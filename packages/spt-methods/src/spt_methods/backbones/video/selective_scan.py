"""The recurrence of a selective state space, by prefix sums instead of a loop over the sequence.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2
and section 3.3.2. https://arxiv.org/abs/2312.00752
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64


def selective_scan(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``y_t = c_t h_t`` with ``h_t = exp(delta_t a) h_{t-1} + delta_t b_t x_t`` and ``h_0 = 0``.

    A chunk of the sequence is scanned in log2(64) = 6 doublings, and its last state starts the next
    one, so a loop turns once for 64 tokens and states of one chunk are held at a time (and, for the
    gradient, of all).

    Args:
        x: Shape ``(B, L, D)``.
        delta: Step sizes, above 0, ``(B, L, D)``.
        a: Below 0, so that the past decays, ``(D, N)``.
        b: Shape ``(B, L, N)``.
        c: Shape ``(B, L, N)``.

    Returns:
        Shape ``(B, L, D)``.

    Example:
        >>> one = torch.ones(1, 3, 1)
        >>> selective_scan(one, one, torch.tensor([[-1e9]]), one, one).flatten()  # no memory
        tensor([1., 1., 1.])
    """
    state = x.new_zeros(len(x), x.shape[2], a.shape[1])
    outputs = []
    for x_k, delta_k, b_k, c_k in zip(
        *(z.split(CHUNK, dim=1) for z in (x, delta, b, c)), strict=True
    ):
        decay = (delta_k.unsqueeze(-1) * a).exp()  # (B, l, D, N)
        added = (delta_k * x_k).unsqueeze(-1) * b_k.unsqueeze(2)
        decay, added = _prefixes(decay, added)
        states = decay * state.unsqueeze(1) + added
        outputs.append(torch.einsum("bldn,bln->bld", states, c_k))
        state = states[:, -1]
    return torch.cat(outputs, dim=1)


def _prefixes(decay: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """For each place, the affine map from the state before the first place to the state there."""
    reach = 1
    while reach < decay.shape[1]:
        earlier_decay, earlier_added = decay[:, :-reach], added[:, :-reach]
        late_decay, late_added = decay[:, reach:], added[:, reach:]
        added = torch.cat([added[:, :reach], late_added + late_decay * earlier_added], dim=1)
        decay = torch.cat([decay[:, :reach], late_decay * earlier_decay], dim=1)
        reach *= 2
    return decay, added
