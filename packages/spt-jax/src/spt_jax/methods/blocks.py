"""I-JEPA's masks, drawn inside the compiled step: arrays of one size, with marks for what is real.

Assran et al., CVPR 2023, section 3; official code ``src/masks/multiblock.py`` of
https://github.com/facebookresearch/ijepa.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class BlockSizes:
    """Ranges of a block's share of the patches and of its height over its width.

    One uniform number sets both, so they rise together, and blocks are smaller than the grid.

    Attributes:
        grid: Rows and columns of patches.
        scale: Range of the share.
        aspect: Range of height / width.
    """

    grid: tuple[int, int]
    scale: tuple[float, float]
    aspect: tuple[float, float]

    def sides(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Height and width for a number ``u`` in [0, 1)."""
        rows, columns = self.grid
        share = self.scale[0] + u * (self.scale[1] - self.scale[0])
        area = jnp.floor(rows * columns * share)
        aspect = self.aspect[0] + u * (self.aspect[1] - self.aspect[0])
        h = jnp.minimum(jnp.round(jnp.sqrt(area * aspect)), rows - 1)
        w = jnp.minimum(jnp.round(jnp.sqrt(area / aspect)), columns - 1)
        return h.astype(jnp.int32), w.astype(jnp.int32)

    def most(self) -> int:
        """Patches of the largest block."""
        rows, columns = self.grid
        u = np.linspace(0, 1, 4097)
        area = np.floor(rows * columns * (self.scale[0] + u * (self.scale[1] - self.scale[0])))
        aspect = self.aspect[0] + u * (self.aspect[1] - self.aspect[0])
        h = np.minimum(np.round(np.sqrt(area * aspect)), rows - 1)
        w = np.minimum(np.round(np.sqrt(area / aspect)), columns - 1)
        return int((h * w).max())


def place_blocks(
    key: jax.Array, number: int, grid: tuple[int, int], h: jax.Array, w: jax.Array
) -> jax.Array:
    """Blocks of one size at random places, True inside, ``(number, rows * columns)``.

    As in the official code, the last row and column are never reached.
    """
    rows, columns = grid
    k_top, k_left = jax.random.split(key)
    top = jax.random.randint(k_top, (number, 1, 1), 0, rows - h)
    left = jax.random.randint(k_left, (number, 1, 1), 0, columns - w)
    y, x = jnp.arange(rows)[None, :, None], jnp.arange(columns)[None, None, :]
    inside = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    return inside.reshape(number, rows * columns)


def places_of(mask: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """The first ``most`` True places of a mask ``(..., L)``, in order, and which of them are real.

    Returns:
        Places and marks, both ``(..., most)``.
    """
    places = jnp.argsort(~mask, axis=-1, stable=True)[..., :most]
    return places, jnp.take_along_axis(mask, places, axis=-1)


def draw_masks(
    key: jax.Array,
    n: int,
    targets: BlockSizes,
    context: BlockSizes,
    num_targets: int,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Target blocks and the context of each image.

    Block sizes are drawn once per batch, places per image; targets may overlap; the context is a block
    without the targets.

    Args:
        key: Random key.
        n: Images.
        targets: Sizes of the target blocks.
        context: Sizes of the context blocks.
        num_targets: Target blocks of each image, T.

    Returns:
        Places and marks of the context ``(n, K)``, and of the targets ``(n, T, M)``.
    """
    k_sizes, k_targets, k_context = jax.random.split(key, 3)
    u = jax.random.uniform(k_sizes, (2,))
    blocks = place_blocks(k_targets, n * num_targets, targets.grid, *targets.sides(u[0]))
    blocks = blocks.reshape(n, num_targets, -1)
    seen = place_blocks(k_context, n, context.grid, *context.sides(u[1])) & ~blocks.any(1)
    return places_of(seen, context.most()), places_of(blocks, targets.most())
