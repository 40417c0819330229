"""PIRL: an image and its shuffled patches find the image's memory among those of others.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations",
CVPR 2020, eq. 3 and 5. https://arxiv.org/abs/1912.01991
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import (
    check_count,
    check_fraction,
    check_positive,
    check_rows,
    check_same_shape,
    check_targets,
    check_width,
)
from spt_losses._distributed import num_rows, world_size
from spt_losses._draws import Draws
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum
from spt_losses.memory_bank import MemoryBank


def pirl_loss(
    image: Tensor,
    patches: Tensor,
    index: Tensor,
    memory: Tensor,
    *,
    negatives: Tensor | None = None,
    temperature: float = 0.07,
    weight: float = 0.5,
    chunk_size: int | None = None,
) -> Tensor:
    """``weight * L(patches) + (1 - weight) * L(image)``, both against a memory of all images.

    Note:
        ``L`` is ``-log h`` of eq. 3, the InfoNCE form, which the authors' library offers as
        ``cross_entropy``. Eq. 4 adds ``-sum log(1 - h)`` over the negatives, whose own
        normalisation the paper leaves open; negatives already act through ``h``.

    Args:
        image: Features of the images, shape ``(N, D)``; normalised here.
        patches: Features of the transformed images, shape ``(N, D)``; normalised here.
        index: Which row of ``memory`` is each image's own, int64 of shape ``(N,)``.
        memory: Unit rows, one per image, shape ``(M, D)``; detached here.
        negatives: Rows of ``memory`` to contrast with, int64 of shape ``(K,)``; an image's own
            row is left out where it is among them. ``None`` takes all.
        temperature: tau of eq. 3, above 0.
        weight: lambda of eq. 5, in ``[0, 1]``.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the images of all ranks.

    Raises:
        TypeError: If a dtype is wrong.
        ValueError: If a shape, an index or a setting is out of range.

    Ranks:
        mean over the images of all ranks, which may differ in number; one memory for all

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> loss = pirl_loss(z, z, torch.arange(2), z, temperature=1.0)
        >>> round(loss.item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_same_shape(image=image, patches=patches)
    for name, z in (("image", image), ("patches", patches), ("memory", memory)):
        check_rows(name, z)
    check_width("memory", memory, image.shape[1])
    check_targets("index", index, rows=len(image), classes=len(memory))
    check_positive("temperature", temperature)
    check_fraction(weight=weight)
    check_count("chunk_size", chunk_size)
    if negatives is not None:
        check_targets("negatives", negatives, rows=len(negatives), classes=len(memory))
    with no_autocast(image):
        memory = memory.detach().to(widen(image).dtype)
        own = memory[index]
        others = memory if negatives is None else memory[negatives]
        hidden, mask = (
            (index[:, None], None) if negatives is None else (None, index[:, None] == negatives)
        )
        of_patches, of_image = (
            contrast_sum(
                z,
                others,
                (z * own).sum(1) / temperature,
                1 / temperature,
                positive_counts=True,
                hidden=hidden,
                mask=mask,
                chunk_size=chunk_size,
            )
            for z in (unit(widen(patches)), unit(widen(image)))
        )
        total = weight * of_patches + (1 - weight) * of_image
        return total * world_size() / num_rows(image)


class PIRLLoss(nn.Module):
    """PIRL with its memory; see :func:`pirl_loss` and :class:`MemoryBank`.

    In training mode the images' features enter the memory after the loss is formed.

    Args:
        num_samples: Images in the data set.
        dim: Width of the features.
        num_negatives: Rows of memory drawn for each batch, with replacement, the same on all
            ranks; all rows are taken where there are no more than that. The paper uses 32000.
        temperature: tau of eq. 3, above 0.
        weight: lambda of eq. 5, in ``[0, 1]``.
        momentum: What a row of memory keeps of itself in an update.
        accumulate: Batches per optimizer step.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.
        seed: Of the draws, which also depend on the number of the call, a buffer.

    Example:
        >>> import torch
        >>> loss = PIRLLoss(100, 16)
        >>> loss(*torch.randn(2, 8, 16), torch.arange(8)).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_samples: int,
        dim: int,
        *,
        num_negatives: int = 32000,
        temperature: float = 0.07,
        weight: float = 0.5,
        momentum: float = 0.5,
        accumulate: int = 1,
        chunk_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("num_negatives", num_negatives)
        check_positive("temperature", temperature)
        check_fraction(weight=weight)
        check_count("chunk_size", chunk_size)
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.weight = weight
        self.chunk_size = chunk_size
        self.bank = MemoryBank(num_samples, dim, momentum=momentum, accumulate=accumulate)
        self.draws = Draws(seed)

    def forward(self, image: Tensor, patches: Tensor, index: Tensor) -> Tensor:
        """Loss of features ``(N, D)`` of images and of their patches; ``index`` names them."""
        loss = pirl_loss(
            image,
            patches,
            index,
            self.bank.rows,
            negatives=self._draw(),
            temperature=self.temperature,
            weight=self.weight,
            chunk_size=self.chunk_size,
        )
        if self.training:
            self.bank.push(image, index)
        return loss

    def _draw(self) -> Tensor | None:
        """Rows to contrast with."""
        total = len(self.bank.rows)
        if total <= self.num_negatives:
            return None
        return self.draws.integers(total, self.num_negatives)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"num_negatives={self.num_negatives}, temperature={self.temperature}"
