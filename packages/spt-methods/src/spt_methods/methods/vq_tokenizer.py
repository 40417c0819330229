"""A tokenizer of images, trained by reconstruction: what BEiT predicts.

van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017.
https://arxiv.org/abs/1711.00937
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spt_methods.backbones.vq import Codebook, vq_decoder, vq_encoder
from spt_methods.module import Module
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def vq_tokenizer(self: Any, batch: Any, stage: Stage) -> State:
    """Reconstruct images from the nearest codes of their patches (eq. 3 with moving-average codes).

    Needs: ``encoder``, ``codebook``, ``decoder``, ``commitment``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, D)``, the mean of the codes, ``tokens`` ``(V * N, P)`` and ``label`` to
    match, if there are labels; in ``fit`` also ``reconstruction``, ``loss_recon`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    quantised = self.codebook(self.encoder(images))
    state: State = {"embedding": quantised.codes.mean((2, 3)), **labels_of(batch, views)}
    state["tokens"] = quantised.tokens.flatten(1)
    if stage == "fit":
        state["reconstruction"] = self.decoder(quantised.codes)
        state["loss_recon"] = F.mse_loss(state["reconstruction"].float(), images.float())
        state["loss"] = state["loss_recon"] + self.commitment * quantised.commitment
    return state


class VQTokenizer(Module):
    """A small VQ-VAE; once trained, a tokenizer for :class:`spt_methods.methods.BEiT`.

    Args:
        vocab_size: Codes.
        patch_size: Side of the patch that a token stands for, a power of two.
        in_chans: Channels of the images.
        hidden_dim: Width of the convolutions.
        codebook_dim: Width of the codes.
        commitment: beta, the weight of the distance of vectors to codes.
        decay: Of the codes' moving averages.
        optim: As for :class:`Module`.
        hparams: Further hyper-parameters to record.

    Example:
        >>> tokenizer = VQTokenizer(32, patch_size=8, hidden_dim=8, codebook_dim=4)
        >>> tokenizer.tokenize(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        vocab_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        hidden_dim: int = 128,
        codebook_dim: int = 32,
        commitment: float = 0.25,
        decay: float = 0.99,
        optim: Any = None,
        hparams: dict[str, Any] | None = None,
    ) -> None:
        recorded = {
            "method": "vq_tokenizer",
            "vocab_size": vocab_size,
            "patch_size": patch_size,
            "hidden_dim": hidden_dim,
            "codebook_dim": codebook_dim,
        }
        super().__init__(
            forward=vq_tokenizer,
            hparams={**recorded, **(hparams or {})},
            optim=optim or {"optimizer": {"type": "Adam", "lr": 2e-4}},
        )
        self.vocab_size = vocab_size
        self.commitment = commitment
        self.encoder = vq_encoder(in_chans, hidden_dim, codebook_dim, patch_size)
        self.codebook = Codebook(vocab_size, codebook_dim, decay)
        self.decoder = vq_decoder(in_chans, hidden_dim, codebook_dim, patch_size)

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Tokens ``(B, N)`` of images ``(B, C, H, W)``, row by row; nothing moves."""
        maps = self.encoder(images)
        vectors = maps.movedim(1, -1).flatten(0, -2).to(self.codebook.codes.dtype)
        return self.codebook.tokens_of(vectors).view(len(images), -1)
