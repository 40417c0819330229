"""Losses on assignments to prototypes: Sinkhorn-Knopp, SwAV, DINO.

Caron et al., SwAV, NeurIPS 2020 (https://arxiv.org/abs/2006.09882); Caron et al., DINO, ICCV 2021
(https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from spt_jax.losses.common import check_positive, l2_normalize, mean_of_rows, wide


def sinkhorn(scores: jax.Array, epsilon: float = 0.05, n_iterations: int = 3) -> jax.Array:
    """Assignments that use all prototypes equally; in logarithms, so nothing overflows.

    Args:
        scores: ``(N, K)``; detached here.
        epsilon: Temperature, above 0.
        n_iterations: Rounds, at least 1.

    Returns:
        ``(N, K)``, rows of sum 1.
    """
    log = jax.lax.stop_gradient(wide(scores)) / epsilon
    for _ in range(n_iterations):
        log = log - jax.nn.logsumexp(log, axis=0, keepdims=True)
        log = log - jax.nn.logsumexp(log, axis=1, keepdims=True)
    return jnp.exp(log)


def swapped_prediction(scores: jax.Array, codes: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Cross-entropy of ``softmax(scores / tau)`` with codes, both ``(N, K)``; mean over rows."""
    log_p = jax.nn.log_softmax(wide(scores) / temperature)
    return -(jax.lax.stop_gradient(codes) * log_p).sum(1).mean()


def swav_loss(
    projections: Sequence[jax.Array],
    prototypes: jax.Array,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    assigned: int = 2,
    queue: jax.Array | None = None,
) -> jax.Array:
    """Each assigned view's codes predicted from every other view; one Sinkhorn problem per view.

    Args:
        projections: One ``(N, D)`` per view, those to be assigned first; normalised here.
        prototypes: ``(K, D)``; normalised here.
        temperature: tau, above 0.
        epsilon: Temperature of the Sinkhorn problem.
        sinkhorn_iterations: Its rounds.
        assigned: How many of the views get codes: the large crops.
        queue: Earlier features ``(Q, D)`` that take part in the assignment.

    Returns:
        Scalar, mean over assigned views, over the others, and over rows.

    Raises:
        ValueError: If there are fewer than two views, or ``assigned`` is out of range.
    """
    if len(projections) < 2 or not 1 <= assigned <= len(projections):
        raise ValueError(
            "SwAV needs at least 2 views and 1 <= `assigned` <= views, got "
            f"{len(projections)} views and {assigned}."
        )
    c = l2_normalize(wide(prototypes))
    scores = [l2_normalize(wide(z)) @ c.T for z in projections]
    total = jnp.zeros(())
    for view in range(assigned):
        candidates = scores[view]
        if queue is not None:
            candidates = jnp.concatenate([l2_normalize(wide(queue)) @ c.T, candidates])
        codes = sinkhorn(candidates, epsilon, sinkhorn_iterations)[-len(scores[view]) :]
        for other, theirs in enumerate(scores):
            if other != view:
                total = total + swapped_prediction(theirs, codes, temperature)
    return total / (assigned * (len(scores) - 1))


def dino_loss(
    student_logits: jax.Array,
    teacher_probs: jax.Array,
    *,
    temperature: float = 0.1,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of every pair of a student's and a teacher's crop, but for equal ones.

    Args:
        student_logits: ``(S, B, K)``; crop ``i`` of the student is crop ``i`` of the teacher.
        teacher_probs: ``(T, B, K)``; detached here.
        temperature: Student's tau, above 0.
        weight: Weights of the rows, ``(B,)``.

    Returns:
        Scalar, mean over pairs and rows.

    Raises:
        ValueError: If shapes do not fit, or there is no pair of different crops.
    """
    students, teachers = len(student_logits), len(teacher_probs)
    if student_logits.shape[1:] != teacher_probs.shape[1:]:
        raise ValueError(
            "`student_logits` (S, B, K) and `teacher_probs` (T, B, K) must agree in B and K, got "
            f"{student_logits.shape} and {teacher_probs.shape}."
        )
    same = min(students, teachers)
    pairs = students * teachers - same
    if pairs < 1:
        raise ValueError(
            "There is no pair of different crops: one crop of the student meets one of the teacher."
        )
    log_p = jax.nn.log_softmax(wide(student_logits) / temperature)
    target = jax.lax.stop_gradient(wide(teacher_probs))
    rows = (target[:same] * log_p[:same]).sum((0, 2)) - (target.sum(0) * log_p.sum(0)).sum(-1)
    return mean_of_rows(rows, weight) / pairs


@dataclass(frozen=True)
class SwAVLoss:
    """SwAV on the scores of two views; see :func:`swav_loss` for several views and a queue.

    Attributes:
        temperature: tau, above 0.
        sinkhorn_iterations: Rounds of the Sinkhorn problem.
        epsilon: Its temperature, above 0.
    """

    temperature: float = 0.1
    sinkhorn_iterations: int = 3
    epsilon: float = 0.05

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature, epsilon=self.epsilon)

    def __call__(self, scores1: jax.Array, scores2: jax.Array) -> jax.Array:
        """Half the sum of both swapped predictions, scores ``(N, K)``."""
        codes = [sinkhorn(s, self.epsilon, self.sinkhorn_iterations) for s in (scores1, scores2)]
        forth = swapped_prediction(scores1, codes[1], self.temperature)
        return (forth + swapped_prediction(scores2, codes[0], self.temperature)) / 2
