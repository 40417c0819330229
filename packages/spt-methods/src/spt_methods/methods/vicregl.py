"""VICRegL: VICReg on images, and on places that match by location or by features.

Bardes, Ponce and LeCun, "VICRegL: Self-Supervised Learning of Local Visual Features", NeurIPS 2022.
https://arxiv.org/abs/2210.01571; official code https://github.com/facebookresearch/VICRegL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from spt_losses import VICRegLLoss
from torch import Tensor, nn

from spt_methods.backbones.contract import tokens_of
from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Batch, Stage, State, images_of, labels_of, views_of

CROPS = ("RandomResizedCrop", "GPURandomResizedCrop")
FLIPS = ("RandomHorizontalFlip", "GPURandomHorizontalFlip")


def vicregl(self: Any, batch: Any, stage: Stage) -> State:
    """Match views as VICReg, and their places by where they lie in the image and by what they show.

    Needs: ``backbone`` (see :func:`tokens_of`), ``projector``, ``map_projector``, ``vicregl_loss``.
    Reads: in ``fit`` at least two views, large ones first, each with ``image`` ``(N, C, H, W)`` and where
    its crop lies: ``locations`` ``(N, h, w, 2)``, or what a random resized crop (and a horizontal flip)
    records; any views elsewhere.
    Writes: ``embedding`` and ``label`` to match, if there are labels: of the first two views ``(2N, F)`` in
    ``fit``, of all views elsewhere; in ``fit`` also ``loss``.
    """
    views = views_of(batch)
    if stage != "fit":
        return {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if len(views) < 2:
        raise ValueError(f"VICRegL trains on 2 views or more, got {len(views)}.")
    outputs = [tokens_of(self.backbone, view["image"]) for view in views]
    embeddings = torch.cat([out.embedding for out in outputs])
    places = [out.patches for out in outputs]
    maps = self.map_projector(torch.cat([x.flatten(0, 1) for x in places]))
    split = maps.split([x.shape[0] * x.shape[1] for x in places])
    loss = self.vicregl_loss(
        self.projector(embeddings).chunk(len(views)),
        [m.view(*x.shape[:2], -1) for m, x in zip(split, places, strict=True)],
        [locations_of(view, out.grid_size) for view, out in zip(views, outputs, strict=True)],
    )
    seen = views[:2]
    embedding = torch.cat([out.embedding for out in outputs[:2]])
    return {"embedding": embedding, "loss": loss, **labels_of(batch, seen)}


def locations_of(view: Batch, grid: tuple[int, int]) -> Tensor:
    """Where the cells of a crop's grid lie in the image that it was cut from.

    Args:
        view: With ``locations``, or with the record of a crop: boxes ``(N, 4)`` of top, left, height and
            width; and perhaps that of a horizontal flip, ``(N,)``.
        grid: Rows and columns.

    Returns:
        Row and column of each cell's centre, shape ``(N, h, w, 2)``, in the unit of the boxes.

    Raises:
        KeyError: If the view says nothing of its crop.
    """
    if "locations" in view:
        given: Tensor = view["locations"]
        return given
    crop = _record(view, CROPS, "box")
    if crop is None:
        raise KeyError(
            "VICRegL matches places and needs to know each view's crop: 'locations', or the record "
            f"of one of {CROPS}; the view holds {sorted(map(str, view))}."
        )
    device = view["image"].device
    top, left, height, width = crop.to(device).float().unbind(-1)
    rows, columns = ((torch.arange(number, device=device) + 0.5) / number for number in grid)
    across = columns.expand(len(top), -1)
    flip = _record(view, FLIPS, "batch_prob")
    if flip is not None:
        flipped = flip.to(device).bool().reshape(-1, 1)
        across = torch.where(flipped, 1 - across, across)
    y = top[:, None] + rows * height[:, None]
    x = left[:, None] + across * width[:, None]
    return torch.stack(
        [y[:, :, None].expand(-1, -1, grid[1]), x[:, None, :].expand(-1, grid[0], -1)], dim=-1
    )


def _record(view: Batch, names: Sequence[str], key: str) -> Tensor | None:
    for name in names:
        if name in view:
            found = view[name]
            return found[key] if isinstance(found, Mapping) else torch.as_tensor(found)
    return None


class VICRegL(Method):
    """VICRegL on a timm encoder.

    Args:
        encoder_name: A timm model that gives its tokens, by name or as a module.
        projector_dims: Widths of the images' expander.
        map_dims: Widths of the places' expander.
        sim_coeff: Weight of the invariance terms.
        std_coeff: Weight of the variance terms.
        cov_coeff: Weight of the covariance terms.
        alpha: Weight of the global part: 0.9 for a ResNet-50, 0.75 for a ConvNeXt.
        num_matches: Matches kept from the first view of a pair to the second, and back.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.2 for a batch of 256, decay 1e-6.

    Note:
        The last norm of encoders that pool before it belongs to the embedding alone, so places come
        unnormalised there, as in the official code's ConvNeXt.
    """

    paper = Recipe(
        "LARS", 0.2, 1e-6, batch=2048, epochs=300, warmup_epochs=10, end_factor=1e-3,
        augmentation="vicreg",
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (8192, 8192, 8192),
        map_dims: Sequence[int] = (512, 512, 512),
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        alpha: float = 0.75,
        num_matches: tuple[int, int] = (20, 4),
        **common: Any,
    ) -> None:
        super().__init__(
            vicregl,
            encoder_name,
            crops=True,
            **common,
        )
        self.projector = mlp_head(self.features, projector_dims, hidden_bias=True)
        places = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.map_projector = mlp_head(places, map_dims, hidden_bias=True)
        self.vicregl_loss = VICRegLLoss(alpha, num_matches, sim_coeff, std_coeff, cov_coeff)
