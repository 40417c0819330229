"""I-JEPA: predict the teacher's features of hidden blocks from the visible context.

Assran et al., CVPR 2023. https://arxiv.org/abs/2301.08243; official code
https://github.com/facebookresearch/ijepa.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import read
from spt_jax.backbone.positions import sincos_2d
from spt_jax.backbone.transformer import Block, layer_norm, take_tokens, token_linear
from spt_jax.backbone.vit import ViT
from spt_jax.losses import smooth_l1
from spt_jax.methods._method import Method, embedded, images_of, labels_of, views_of, weight_of
from spt_jax.methods.blocks import BlockSizes, draw_masks
from spt_jax.module import State
from spt_jax.teacher import TeacherStudentWrapper


def ijepa(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict each target block of the teacher's features, separately, from the student's context.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``ViT``), ``predictor``, ``ijepa_settings``.
    Reads: ``image`` ``(N, H, W, C)``, or the first of ``views``.
    Writes: ``embedding``, the mean of the teacher's patches, and ``label``; in ``fit`` also ``predictions``
    and ``targets`` ``(N, T, M, F)`` and ``loss``.
    """
    views = views_of(batch)[:1]
    teacher: ViT = self.backbone.teacher
    if stage != "fit":
        return embedded(lambda x: mean_of_patches(teacher, self.backbone(x, tokens=True)), views)
    images = images_of(views)
    tokens = self.backbone.forward_teacher(images, tokens=True)
    state: State = {"embedding": mean_of_patches(teacher, tokens), **labels_of(views)}
    settings = self.ijepa_settings
    grid = teacher.grid_of(*images.shape[1:3])
    (keep, seen), (places, real) = draw_masks(
        self.step_key(),
        len(images),
        BlockSizes(grid, settings["target_scale"], settings["target_aspect_ratio"]),
        BlockSizes(grid, settings["context_scale"], (1.0, 1.0)),
        settings["num_targets"],
    )
    context = self.backbone.forward_student(images, keep=keep, valid=seen, tokens=True)
    context = context[:, teacher.num_prefix_tokens :]
    state["predictions"] = self.predictor(context, keep, seen, places, real, grid)
    state["targets"] = gathered_targets(tokens[:, teacher.num_prefix_tokens :], places)
    weight = weight_of(batch)
    state["loss"] = block_loss(state["predictions"], state["targets"], real, weight)
    return state


def mean_of_patches(backbone: ViT, tokens: jax.Array) -> jax.Array:
    """The mean of the patches' tokens, ``(N, F)``."""
    return tokens[:, backbone.num_prefix_tokens :].mean(1)


def gathered_targets(tokens: jax.Array, places: jax.Array) -> jax.Array:
    """Tokens ``(N, L, F)``, normalised without parameters (eps 1e-5), at places ``(N, T, M)``."""
    wide = tokens.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    n, t, m = places.shape
    return take_tokens(normal, places.reshape(n, t * m)).reshape(n, t, m, -1)


def block_loss(
    predictions: jax.Array, targets: jax.Array, real: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
    """Mean smooth-L1 distance over real places.

    Args:
        predictions: ``(N, T, M, F)``.
        targets: ``(N, T, M, F)``; detached here.
        real: Which places exist, ``(N, T, M)``.
        weight: Weights of the images, ``(N,)``.
    """
    error = smooth_l1(predictions, jax.lax.stop_gradient(targets)).mean(-1)
    counted = real.astype(jnp.float32)
    counted = counted if weight is None else counted * weight[:, None, None]
    return (error * counted).sum() / jnp.maximum(counted.sum(), 1.0)


class Predictor(nnx.Module):
    """A narrow transformer over the context and one target block's mask tokens.

    Args:
        embed_dim: Width of the encoder's tokens.
        rngs: Where weights are drawn.
        dim: Width inside, a multiple of 4.
        depth: Blocks.
        num_heads: Heads.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        dim: int = 384,
        depth: int = 6,
        num_heads: int = 12,
    ) -> None:
        self.dim = dim
        self.depth = depth
        self.embed = token_linear(embed_dim, dim, rngs=rngs)
        self.mask_token = nnx.Param(
            0.02 * jax.random.truncated_normal(rngs.params(), -2, 2, (1, 1, dim))
        )
        self.blocks = nnx.Sequential(*(Block(dim, num_heads, rngs=rngs) for _ in range(depth)))
        self.norm = layer_norm(dim, rngs=rngs)
        self.proj = token_linear(dim, embed_dim, rngs=rngs)

    def __call__(
        self,
        context: jax.Array,
        keep: jax.Array,
        seen: jax.Array,
        places: jax.Array,
        real: jax.Array,
        grid: tuple[int, int],
    ) -> jax.Array:
        """Predict every target block; blocks do not see each other.

        Args:
            context: Encoded context, ``(N, K, embed_dim)``.
            keep: Its places, ``(N, K)``.
            seen: Which of them are real, ``(N, K)``.
            places: Places of the targets, ``(N, T, M)``.
            real: Which of them are real, ``(N, T, M)``.
            grid: Rows and columns of patches.

        Returns:
            ``(N, T, M, embed_dim)``.
        """
        n, t, m = places.shape
        x = self.embed(context)
        table = jnp.asarray(sincos_2d(self.dim, grid)).astype(x.dtype)
        x = x + table[keep]
        queries = read(self.mask_token).astype(x.dtype) + table[places.reshape(n * t, m)]
        x = jnp.concatenate([jnp.repeat(x, t, axis=0), queries], axis=1)  # (N * T, K + M, dim)
        valid = jnp.concatenate([jnp.repeat(seen, t, axis=0), real.reshape(n * t, m)], axis=1)
        for block in self.blocks.layers:
            x = block(x, valid=valid)
        out = self.proj(self.norm(x[:, -m:]))
        return out.reshape(n, t, m, -1)

    def torch_names(self) -> dict[str, str]:
        """Our modules' names, and those of the official code."""
        names = {
            "embed": "predictor_embed",
            "mask_token": "mask_token",
            "norm": "predictor_norm",
            "proj": "predictor_proj",
        }
        for i in range(self.depth):
            for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                names[f"blocks.layers.{i}.{part}"] = f"predictor_blocks.{i}.{part}"
        return names


class IJEPA(Method):
    """I-JEPA on a vision transformer; the paper's is ``ViT(class_token=False, pos_embed="sincos")``.

    Evaluates the teacher, and brings its update along (on a line, as the official code).

    Note:
        The official code cuts contexts and targets to the least number in the batch; here all
        places count, and masks mark what is real, so that every step has one shape.

    Args:
        backbone: A ``ViT``.
        rngs: Where the predictor's weights are drawn.
        predictor_embed_dim: Width of the predictor.
        predictor_depth: Its blocks.
        predictor_num_heads: Its heads.
        num_targets: Target blocks of each image.
        target_scale: Range of a target's share of the patches.
        target_aspect_ratio: Range of its height over its width.
        context_scale: Range of the context block's share.
        base_ema: m of the teacher at the first step.
        final_ema: m at the last step.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        rngs: nnx.Rngs,
        predictor_embed_dim: int = 384,
        predictor_depth: int = 6,
        predictor_num_heads: int = 12,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect_ratio: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        base_ema: float = 0.996,
        final_ema: float = 1.0,
        **common: Any,
    ) -> None:
        settings = {
            "num_targets": num_targets,
            "target_scale": target_scale,
            "target_aspect_ratio": target_aspect_ratio,
            "context_scale": context_scale,
        }
        predictor = Predictor(
            backbone.embed_dim,
            rngs=rngs,
            dim=predictor_embed_dim,
            depth=predictor_depth,
            num_heads=predictor_num_heads,
        )
        super().__init__(
            ijepa,
            TeacherStudentWrapper(backbone, base_ema, final_ema, schedule="linear"),
            settings={
                "predictor_embed_dim": predictor_embed_dim,
                "predictor_depth": predictor_depth,
                "predictor_num_heads": predictor_num_heads,
                "base_ema": base_ema,
                "final_ema": final_ema,
                **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
            },
            parts={"predictor": predictor, "ijepa_settings": settings},
            **common,
        )
