"""DINO: each crop of the student predicts the teacher's distribution of the other large crops.

Caron et al., ICCV 2021. https://arxiv.org/abs/2104.14294; official code
https://github.com/facebookresearch/dino.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import read, write
from spt_jax.backbone.layers import gelu
from spt_jax.losses import dino_loss
from spt_jax.losses.common import l2_normalize
from spt_jax.methods._method import (
    Buffer,
    Method,
    crops_of,
    embedded,
    images_of,
    views_of,
    weight_of,
)
from spt_jax.methods.swav import Prototypes
from spt_jax.module import State
from spt_jax.teacher import TeacherStudentWrapper


def dino(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict the centred and sharpened output of the teacher for the other large crops.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``center``, ``dino_settings``.
    Reads: ``global_views`` and ``local_views``, or ``views``, in ``fit``; any number or a single ``image``
    elsewhere.
    Writes: ``embedding`` of the teacher (large crops in ``fit``) and ``label`` to match; in ``fit`` also
    ``teacher_logits`` ``(T, B, K)``, ``student_logits`` ``(S, B, K)`` and ``loss``.
    """
    if stage != "fit":
        return embedded(self.backbone.forward_teacher, views_of(batch))
    large, small = crops_of(batch, "DINO")
    state = embedded(self.backbone.forward_teacher, large)
    teacher = self.projector.forward_teacher(state["embedding"])
    features = [
        self.backbone.forward_student(images_of(views)) for views in (large, small) if views
    ]
    settings = self.dino_settings
    frozen = self.step().number < settings["freeze_last_layer_steps"]
    student = self.projector.forward_student(jnp.concatenate(features), frozen)
    size = len(large[0]["image"])
    state["teacher_logits"] = teacher.reshape(len(large), size, -1)
    state["student_logits"] = student.reshape(len(large) + len(small), size, -1)
    probabilities = self.center.sharpened(
        state["teacher_logits"], teacher_temperature(self.step().number, settings)
    )
    state["loss"] = dino_loss(
        state["student_logits"],
        probabilities,
        temperature=settings["temperature_student"],
        weight=weight_of(batch),
    )
    self.center.update(state["teacher_logits"])
    return state


def teacher_temperature(step: Any, settings: Mapping[str, Any]) -> Any:
    """From the warm-up's first value to the final one on a line, then constant."""
    last = settings["temperature_teacher"]
    steps = settings["warmup_steps_temperature_teacher"]
    if steps < 2:
        return last
    first = settings["temperature_teacher_warmup"]
    return first + (last - first) * jnp.minimum(step / (steps - 1), 1.0)


class Center(nnx.Module):
    """The moving average of the teacher's logits, from zero.

    Args:
        number: Prototypes, K.
        momentum: m in ``c <- m c + (1 - m) mean``.
    """

    def __init__(self, number: int, momentum: float) -> None:
        self.center = Buffer(jnp.zeros(number))
        self.momentum = momentum

    def sharpened(self, logits: jax.Array, temperature: Any) -> jax.Array:
        """``softmax((x - c) / T)`` of logits ``(..., K)``, in float32."""
        return jax.nn.softmax((logits.astype(jnp.float32) - read(self.center)) / temperature)

    def update(self, logits: jax.Array) -> None:
        """Move by the mean of logits ``(..., K)``, for the next step."""
        rows = jax.lax.stop_gradient(logits).astype(jnp.float32).reshape(-1, logits.shape[-1])
        old = read(self.center)
        write(self.center, old + (1 - self.momentum) * (rows.mean(0) - old))


class DINOHead(nnx.Module):
    """Three layers with GELU, unit vectors, and cosines with unit prototypes.

    Args:
        in_dim: Width of the features.
        n_prototypes: K.
        rngs: Where weights are drawn.
        hidden: Width inside.
        bottleneck: Width of the unit vectors.
    """

    def __init__(
        self,
        in_dim: int,
        n_prototypes: int,
        *,
        rngs: nnx.Rngs,
        hidden: int = 2048,
        bottleneck: int = 256,
    ) -> None:
        init = nnx.initializers.truncated_normal(0.02)
        widths = (in_dim, hidden, hidden, bottleneck)
        layers: list[Any] = []
        for a, b in pairwise(widths):
            layers += [nnx.Linear(a, b, kernel_init=init, rngs=rngs), gelu]
        self.mlp = nnx.Sequential(*layers[:-1])
        self.last_layer = Prototypes(bottleneck, n_prototypes, rngs=rngs)

    def __call__(self, x: jax.Array, frozen: Any = False) -> jax.Array:
        """``(N, in_dim)`` to logits in [-1, 1], ``(N, K)``; ``frozen`` prototypes get no gradient."""
        z = l2_normalize(self.mlp(x).astype(jnp.float32))
        prototypes = l2_normalize(self.last_layer.weights())  # weight norm with its gain fixed at 1
        prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        return z @ prototypes.T


class DINO(Method):
    """DINO; evaluates the teacher, and brings its update along.

    Args:
        backbone: From images to ``(N, embed_dim)``; of several sizes if there are small crops.
        embed_dim: Width of its output.
        rngs: Where the head's weights are drawn.
        n_prototypes: K.
        hidden: Width inside the head.
        bottleneck: Width of its unit vectors.
        temperature_student: tau of the student.
        temperature_teacher_warmup: tau of the teacher at the first step.
        temperature_teacher: tau of the teacher after the warm-up.
        warmup_steps_temperature_teacher: Steps of the warm-up; 30 epochs in the paper.
        freeze_last_layer_steps: Steps in which prototypes get no gradient; an epoch in the paper.
        center_momentum: m of the centre.
        base_ema: m of the teacher at the first step.
        final_ema: m at the last step.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        n_prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        temperature_student: float = 0.1,
        temperature_teacher_warmup: float = 0.04,
        temperature_teacher: float = 0.07,
        warmup_steps_temperature_teacher: int = 0,
        freeze_last_layer_steps: int = 0,
        center_momentum: float = 0.9,
        base_ema: float = 0.996,
        final_ema: float = 1.0,
        **common: Any,
    ) -> None:
        settings = {
            "temperature_student": temperature_student,
            "temperature_teacher_warmup": temperature_teacher_warmup,
            "temperature_teacher": temperature_teacher,
            "warmup_steps_temperature_teacher": warmup_steps_temperature_teacher,
            "freeze_last_layer_steps": freeze_last_layer_steps,
        }
        head = DINOHead(embed_dim, n_prototypes, rngs=rngs, hidden=hidden, bottleneck=bottleneck)
        super().__init__(
            dino,
            TeacherStudentWrapper(backbone, base_ema, final_ema),
            settings={
                "n_prototypes": n_prototypes,
                "center_momentum": center_momentum,
                "base_ema": base_ema,
                "final_ema": final_ema,
                **settings,
            },
            parts={
                "projector": TeacherStudentWrapper(head, base_ema, final_ema),
                "center": Center(n_prototypes, center_momentum),
                "dino_settings": settings,
            },
            **common,
        )
