"""MIM-Refiner: contrast the later blocks of a masked-image model, with neighbours as positives.

Alkin et al., "MIM-Refiner: A Contrastive Learning Boost from Intermediate Pre-Trained
Representations", ICLR 2025, eq. 2. https://arxiv.org/abs/2402.10093; official code
https://github.com/ml-jku/MIM-Refiner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from spt_losses import FeatureQueue, NNALoss, gather_rows
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.heads import mlp_head
from spt_methods.masking.seeded import SeededMasking
from spt_methods.methods._class_token import check_class_token
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import (
    Stage,
    State,
    crops_of,
    embed,
    encode_crops,
    labels_of,
)


def mimrefiner(self: Any, batch: Any, stage: Stage) -> State:
    """Nearest-neighbour alignment of the class tokens of several blocks, each in a head of its own.

    Needs: ``backbone`` (a ``ViTTokens``), ``heads`` (a ``ModuleList`` of :class:`NNAHead`, the last for the
    normed output, those before for the outputs of the blocks before the last), ``nna_loss``.
    Reads: in ``fit`` named crops ``global...`` and, if wanted, ``local...``, each with ``image``
    ``(N, C, H, W)``, and ``sample_idx`` ``(N,)`` if images are not to be their own neighbours; any views
    elsewhere.
    Writes: ``embedding`` and ``label`` to match, if there are labels: of the large crops ``(G * N, F)`` in
    ``fit``, of all views elsewhere; in ``fit`` also ``head_losses`` ``(H,)`` and their sum, ``loss``.
    """
    if stage != "fit":
        return embed(lambda images: self.backbone(images).embedding, batch)
    large, small = crops_of(batch, "MIM-Refiner")

    def encode(images: Tensor) -> Tensor:
        return _class_tokens(self.backbone, images, len(self.heads))

    tokens = torch.stack(encode_crops(encode, [*large, *small]))  # (V, N, H, D)
    ids = _sample_ids(batch, large[0])
    losses = []
    for head, x in zip(self.heads, tokens.unbind(2), strict=True):
        projected = head.projector(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        predicted = head.predictor(projected.flatten(0, 1)).unflatten(0, x.shape[:2])
        shown = projected[: len(large)].detach()
        losses.append(self.nna_loss(shown, head.queue.neighbours(shown, ids), predicted))
        if self.training:
            head.queue.push_samples(shown[0], ids)  # only now: no image meets itself
    state: State = {"embedding": tokens[: len(large), :, -1].flatten(0, 1).detach()}
    state.update(labels_of(batch, large))
    state["head_losses"] = torch.stack(losses)
    state["loss"] = state["head_losses"].sum()
    return state


def _class_tokens(encoder: Any, images: Tensor, count: int) -> Tensor:
    """Of the last blocks, the very last one's after the norm: ``(M, count, D)``."""
    outputs = encoder.block_outputs(images)
    chosen = [*outputs[len(outputs) - count : -1], encoder.norm(outputs[-1])]
    return torch.stack([tokens[:, 0] for tokens in chosen], dim=1)


def _sample_ids(batch: Any, crop: Any) -> Tensor | None:
    """The numbers of the images, if they are known."""
    holder = crop if "sample_idx" in crop else batch
    ids: Tensor | None = holder.get("sample_idx") if isinstance(holder, Mapping) else None
    return ids


class NeighbourQueue(FeatureQueue):
    """A queue of features that knows which image each came from.

    Args:
        length: Number of rows.
        dim: Width of the rows.
        top_k: A neighbour is one of so many nearest rows, at random.
        seed: Of the rows at the start and of the choices.

    Attributes:
        ids: The images' numbers, -1 where unknown, shape ``(length,)``.

    Raises:
        ValueError: Unless ``1 <= top_k <= length``.
    """

    ids: Tensor

    def __init__(self, length: int, dim: int, top_k: int = 20, seed: int = 0) -> None:
        super().__init__(length, dim, seed=seed)
        if not 1 <= top_k <= length:
            raise ValueError(
                f"`top_k` must be between 1 and the queue's {length} rows, got {top_k}."
            )
        self.top_k = top_k
        self.choice = SeededMasking(seed)
        self.register_buffer("ids", torch.full((length,), -1))

    @torch.no_grad()
    def neighbours(self, z: Tensor, ids: Tensor | None = None) -> Tensor:
        """A near row for each of ``z`` ``(G, N, D)`` that is not of the same image.

        Args:
            z: Features of G views.
            ids: The images' numbers, shape ``(N,)``.
        """
        flat = F.normalize(z.detach().flatten(0, 1).to(self.rows.dtype), dim=1)
        similarity = flat @ self.rows.T  # (G * N, length)
        if ids is not None and self.training:
            same = ids.unsqueeze(1) == self.ids
            similarity = similarity.masked_fill(same.repeat(len(z), 1), -torch.inf)
        nearest = similarity.topk(self.top_k, dim=1).indices
        generator = self.choice.next_generator(z.device)
        chosen = torch.randint(self.top_k, (len(flat), 1), generator=generator, device=z.device)
        return self.rows[nearest.gather(1, chosen).squeeze(1)].view_as(z).to(z.dtype)

    @torch.no_grad()
    def push_samples(self, rows: Tensor, ids: Tensor | None = None) -> None:
        """Take in rows ``(N, D)`` and the images' numbers ``(N,)`` of all ranks."""
        unit = F.normalize(rows.detach().to(self.rows.dtype), dim=1)
        if ids is None:
            ids = torch.full((len(rows),), -1, device=rows.device)
        # as floating-point numbers, exact up to 2^53
        numbers = gather_rows(ids.to(rows.device, torch.float64).unsqueeze(1)).squeeze(1).long()
        if self._pending.add(gather_rows(unit), numbers):
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        """Let the rows that wait enter now."""
        for rows, ids in self._pending.take():
            length = len(self.rows)
            skipped = max(len(ids) - length, 0)
            places = torch.arange(skipped, len(ids), device=ids.device)
            self.ids.index_copy_(0, (places + self.pointer) % length, ids[skipped:])
            self._write(rows)


class NNAHead(nn.Module):
    """A projector, a predictor and a queue of projections.

    Args:
        width: Of the features.
        projector_dims: Widths of the projector's layers, each with BatchNorm.
        predictor_hidden_dim: Width inside the predictor.
        queue_length: Rows of the queue.
        top_k: See :class:`NeighbourQueue`.
        seed: Of the queue.
    """

    def __init__(
        self,
        width: int,
        projector_dims: tuple[int, ...],
        predictor_hidden_dim: int,
        queue_length: int,
        top_k: int,
        seed: int,
    ) -> None:
        super().__init__()
        out = projector_dims[-1]
        widths = (predictor_hidden_dim, out)
        self.projector = mlp_head(width, projector_dims, last_norm="affine", gelu=True)
        self.predictor = mlp_head(out, widths, last_norm="affine", gelu=True)
        for part in (*self.projector, *self.predictor):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
        self.queue = NeighbourQueue(queue_length, out, top_k, seed)


class MIMRefiner(Method):
    """MIM-Refiner on a transformer that was pretrained by masked image modelling.

    Args:
        pretrained_encoder: A timm transformer with a class token, by name (then with ``pretrained=True``)
            or as a module.
        freeze_lower_blocks: Blocks at the input that are not trained, with all before them. With as
            many as there are, the heads alone are trained, on a frozen encoder: the second of the
            paper's three stages; its ``heads`` are then loaded before the third.
        num_heads: Heads; one for the output and one for each of the blocks before the last.
        projector_dims: Widths of a head's projector.
        predictor_hidden_dim: Width inside a head's predictor.
        queue_length: Rows of a head's queue.
        top_k: A positive is one of so many nearest rows, at random.
        temperature: tau.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is that of the third stage for MAE's ViT-L: AdamW (0.9, 0.95) at 4e-4 for a
            batch of 1024, decay 0.05 (1e-5 for heads), layer decay 0.65.

    Raises:
        ValueError: If the encoder has fewer blocks than are asked for, or does not return its class
            token.

    Note:
        Local crops meet their own predictions, as the paper says; the loop of the official code
        reads those of the global crops in their place. Without ``sample_idx`` in the batch an image
        may meet itself of an epoch before. The authors evaluate an average of the encoder's
        weights; here it is the encoder.
    """

    paper = Recipe(
        "AdamW", 4e-4, 0.05, batch=1024, epochs=30, warmup_epochs=4, base_batch=1024,
        augmentation="dino", settings={"betas": (0.9, 0.95)},
        options={
            "layer_decay": 0.65,
            "groups": {"heads": {"weight_decay": 1e-5}, **UNDECAYED["groups"]},
        },
    )  # fmt: skip

    def __init__(
        self,
        pretrained_encoder: str | nn.Module = "vit_large_patch16_224",
        freeze_lower_blocks: int = 0,
        num_heads: int = 8,
        projector_dims: tuple[int, ...] = (2048, 2048, 256),
        predictor_hidden_dim: int = 4096,
        queue_length: int = 65536,
        top_k: int = 20,
        temperature: float = 0.2,
        **common: Any,
    ) -> None:
        super().__init__(
            mimrefiner,
            pretrained_encoder,
            crops=True,
            tokens=True,
            **common,
        )
        encoder: Any = self.backbone
        check_class_token(encoder, "MIM-Refiner")
        _freeze_lower(encoder, freeze_lower_blocks)
        depth = len(encoder.vit.blocks)
        if not 1 <= num_heads <= depth:
            raise ValueError(
                f"`num_heads` must be between 1 and the encoder's {depth} blocks, got {num_heads}."
            )
        self.heads = nn.ModuleList(
            NNAHead(
                self.features, projector_dims, predictor_hidden_dim, queue_length, top_k, seed=index
            )
            for index in range(num_heads)
        )
        self.nna_loss = NNALoss(temperature)


def _freeze_lower(encoder: Any, blocks: int) -> None:
    """Freeze what lies before block number ``blocks``; everything, if there is none."""
    depth = len(encoder.vit.blocks)
    if not 0 <= blocks <= depth:
        raise ValueError(
            f"`freeze_lower_blocks` must be between 0 and the encoder's {depth} blocks, got {blocks}."
        )
    if blocks == depth:
        encoder.requires_grad_(False)
    elif blocks:
        for name, parameter in encoder.vit.named_parameters():
            first, _, rest = name.partition(".")
            if first == "blocks":
                parameter.requires_grad_(int(rest.partition(".")[0]) >= blocks)
            elif first not in ("norm", "fc_norm"):
                parameter.requires_grad_(False)
