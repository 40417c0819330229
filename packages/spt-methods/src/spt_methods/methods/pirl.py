"""PIRL: an image and its shuffled patches find the image's memory among those of others.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020.
https://arxiv.org/abs/1912.01991; the authors' code is part of
https://github.com/facebookresearch/vissl.
"""

from __future__ import annotations

from typing import Any

import torch
from spt_losses import PIRLLoss
from torch import Tensor, nn

from spt_methods.masking.seeded import SeededMasking
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def pirl(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast an image, and its patches in random order, with a memory of all images.

    Needs: ``backbone``, ``projector``, ``patch_projector``, ``jigsaw``, ``pirl_loss``.
    Reads: in ``fit`` one view, or two of which the second is cut into patches, with ``image``
    ``(N, C, H, W)``, and ``sample_idx`` ``(N,)``, the image's number in the data set; any views elsewhere.
    Writes: ``embedding`` and ``label`` to match, if there are labels: of the first view ``(N, F)`` in
    ``fit``, of all views elsewhere; in ``fit`` also ``projection`` and ``patch_projection`` ``(N, D)`` and
    ``loss``. The image's slot moves after the loss.
    """
    views = views_of(batch)
    seen = views[:1] if stage == "fit" else views
    state: State = {"embedding": self.backbone(images_of(seen)), **labels_of(batch, seen)}
    if stage == "fit":
        index = _sample_idx(batch, views[0])
        patches = self.jigsaw(views[-1]["image"])  # (N, G, C, h, w)
        features = self.backbone(patches.flatten(0, 1)).view(*patches.shape[:2], -1)
        state["projection"] = self.projector(state["embedding"])
        state["patch_projection"] = self.patch_projector(features)
        state["loss"] = self.pirl_loss(state["projection"], state["patch_projection"], index)
    return state


def _sample_idx(batch: Any, view: Any) -> Tensor:
    for holder in (view, batch):
        if isinstance(holder, dict) and "sample_idx" in holder:
            index: Tensor = holder["sample_idx"]
            return index
    raise KeyError(
        "PIRL remembers every image and needs 'sample_idx', its number in the data set; the view "
        f"holds {sorted(map(str, view))}."
    )


class Jigsaw(SeededMasking):
    """Cut images into a grid, a random part of each cell, in random order.

    Args:
        grid: Cells per side; 3 in the paper.
        share: Side of the part over that of its cell; 64 of 85 pixels in the paper.
        seed: First part of the key of the draws.
    """

    def __init__(self, grid: int = 3, share: float = 64 / 85, seed: int = 0) -> None:
        super().__init__(seed)
        if grid < 2 or not 0.0 < share <= 1.0:
            raise ValueError(f"`grid` must be >= 2 and `share` in (0, 1], got {grid} and {share}.")
        self.grid = grid
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        """Patches ``(N, grid^2, C, h, w)`` of images ``(N, C, H, W)``."""
        size, channels, rows, columns = images.shape
        height, width = rows // self.grid, columns // self.grid
        h, w = max(int(height * self.share), 1), max(int(width * self.share), 1)
        generator = self.next_generator(images.device)
        shape, number = (size, self.grid**2), self.grid**2
        draw = torch.rand(3, *shape, generator=generator, device=images.device)
        cells = draw[2].argsort(dim=1)  # the order of the cells
        top = (draw[0] * (height - h + 1)).long() + cells // self.grid * height
        left = (draw[1] * (width - w + 1)).long() + cells % self.grid * width
        y = (top[..., None] + torch.arange(h, device=images.device))[..., :, None]
        x = (left[..., None] + torch.arange(w, device=images.device))[..., None, :]
        places = (y * columns + x).view(size, 1, -1).expand(-1, channels, -1)
        cut = images.flatten(2).gather(2, places)
        return cut.view(size, channels, number, h, w).transpose(1, 2)


class PatchProjector(nn.Module):
    """Each patch to a narrow vector, all of them, in their order, to one.

    Args:
        features: Width of the encoder's features.
        dim: Width of both.
        patches: How many.
    """

    def __init__(self, features: int, dim: int, patches: int) -> None:
        super().__init__()
        self.each = nn.Linear(features, dim)
        self.all = nn.Linear(dim * patches, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(N, dim)`` from ``(N, patches, features)``."""
        out: Tensor = self.all(self.each(x).flatten(1))
        return out


class PIRL(Method):
    """PIRL on a timm encoder.

    Args:
        encoder_name: A timm model that takes images of any size, or a module with ``num_features``
            that returns ``(N, F)``.
        num_samples: Images in the data set, each with its slot of memory.
        projector_dim: Width of the projections.
        num_negatives: Slots to contrast with.
        temperature: tau.
        lambda_pirl: Weight of the patches' term.
        momentum: What a slot keeps of itself.
        jigsaw_grid: Cells per side.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is SGD at 0.12 for a batch of 1024, decay 1e-4.
    """

    paper = Recipe(
        "SGD", 0.12, 1e-4, batch=1024, epochs=800, base_batch=1024, end_factor=1e-3,
        augmentation="moco_v2", settings={"momentum": 0.9},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        *,
        num_samples: int,
        projector_dim: int = 128,
        num_negatives: int = 32000,
        temperature: float = 0.07,
        lambda_pirl: float = 0.5,
        momentum: float = 0.5,
        jigsaw_grid: int = 3,
        **common: Any,
    ) -> None:
        super().__init__(
            pirl,
            encoder_name,
            crops=True,
            **common,
        )
        self.projector = nn.Linear(self.features, projector_dim)
        self.patch_projector = PatchProjector(self.features, projector_dim, jigsaw_grid**2)
        self.jigsaw = Jigsaw(jigsaw_grid)
        self.pirl_loss = PIRLLoss(
            num_samples,
            projector_dim,
            num_negatives=num_negatives,
            temperature=temperature,
            weight=lambda_pirl,
            momentum=momentum,
        )
