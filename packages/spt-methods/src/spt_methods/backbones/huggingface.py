"""Encoders of Hugging Face; they need ``pip install "spt-methods[hf]"``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spt_methods.backbones.vit_tokens import Tokens


class _Size(NamedTuple):
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


SIZES = {
    "tiny": _Size(192, 12, 3),
    "small": _Size(384, 12, 6),
    "base": _Size(768, 12, 12),
    "large": _Size(1024, 24, 16),
    "huge": _Size(1280, 32, 16),
}


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'Encoders of Hugging Face need transformers: pip install "spt-methods[hf]".'
        ) from error
    return transformers


def vit_hf(
    size: str = "tiny",
    patch_size: int = 16,
    image_size: int = 224,
    pretrained: bool = False,
    use_mask_token: bool = True,
    **config: Any,
) -> nn.Module:
    """Hugging Face's ``ViTModel`` without its pooler.

    Args:
        size: ``"tiny"``, ``"small"``, ``"base"``, ``"large"``, ``"huge"``; or a name on the hub (or a
            folder), as ``"google/vit-base-patch16-224-in21k"``, which is loaded with its weights.
        patch_size: Side of the patches.
        image_size: Side of the images.
        pretrained: Load ``google/vit-{size}-patch{p}-{image_size}-in21k``, where the hub has it.
        use_mask_token: Have a mask token, for ``bool_masked_pos``.
        **config: Further arguments of ``ViTConfig``; of ``from_pretrained`` for loaded ones.

    Returns:
        A model whose output has ``last_hidden_state`` ``(B, 1 + N, D)``, the class token first.
        :class:`HuggingFaceEncoder` makes it an encoder for the methods.

    Raises:
        ValueError: If there is no such size.
    """
    transformers = _transformers()
    if "/" in size:
        loaded: nn.Module = transformers.ViTModel.from_pretrained(
            size, add_pooling_layer=False, use_mask_token=use_mask_token, **config
        )
        return loaded
    if size not in SIZES:
        raise ValueError(
            f"`size` must be one of {sorted(SIZES)} or a name on the hub with a '/', got {size!r}."
        )
    if pretrained:
        name = f"google/vit-{size}-patch{patch_size}-{image_size}-in21k"
        return vit_hf(name, use_mask_token=use_mask_token, **config)
    width, depth, heads = SIZES[size]
    settings = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "patch_size": patch_size,
        "image_size": image_size,
        **config,
    }
    made: nn.Module = transformers.ViTModel(
        transformers.ViTConfig(**settings), add_pooling_layer=False, use_mask_token=use_mask_token
    )
    return made


def from_huggingface(
    model_name: str, pretrained: bool = True, attn_implementation: str = "sdpa", **kwargs: Any
) -> nn.Module:
    """The base model of any vision architecture of Hugging Face.

    Args:
        model_name: A name on the hub, or a folder.
        pretrained: Load the weights; else only the configuration.
        attn_implementation: ``"sdpa"``, ``"eager"`` and others.
        **kwargs: As for ``AutoModel`` (with weights) or ``AutoConfig`` (without).
    """
    transformers = _transformers()
    if pretrained:
        model = transformers.AutoModel.from_pretrained(
            model_name, attn_implementation=attn_implementation, **kwargs
        )
    else:
        config = transformers.AutoConfig.from_pretrained(model_name, **kwargs)
        model = transformers.AutoModel.from_config(config, attn_implementation=attn_implementation)
    base: nn.Module = model.base_model
    return base


class HuggingFaceEncoder(nn.Module):
    """A vision transformer of Hugging Face as an encoder: images in, the class token out.

    Images of other sizes than its own are taken where the model can resample its positions.

    Args:
        model: With ``config.hidden_size``, ``config.patch_size`` and an output that has
            ``last_hidden_state``, the class token first.

    Attributes:
        num_features: Width of the embedding.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.num_features = int(config.hidden_size)
        self.patch_size = int(config.patch_size)
        size = config.image_size
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)

    def tokens(self, images: Tensor, bool_masked_pos: Tensor | None = None) -> Tokens:
        """All tokens; ``bool_masked_pos`` ``(B, N)`` is True where the mask token stands."""
        given: dict[str, Any] = {}
        if tuple(images.shape[-2:]) != self.image_size:
            given["interpolate_pos_encoding"] = True
        if bool_masked_pos is not None:
            given["bool_masked_pos"] = bool_masked_pos
        states: Tensor = self.model(pixel_values=images, **given).last_hidden_state
        grid = tuple(side // self.patch_size for side in images.shape[-2:])
        prefix = states.shape[1] - grid[0] * grid[1]
        return Tokens(states[:, 0], states[:, :prefix], states[:, prefix:], (grid[0], grid[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Class tokens ``(B, F)`` of images ``(B, C, H, W)``."""
        return self.tokens(images).embedding


class HuggingFaceText(nn.Module):
    """A text model of Hugging Face as a text encoder: token numbers in, one vector per text out.

    The model's own pooled output, where it has one (CLIP, SigLIP), else the mean over the tokens.

    Args:
        model: With ``config.hidden_size`` and an output that has ``last_hidden_state``.
        pad_token: Number of the token that is neither looked at nor averaged, as BERT needs it; with
            ``None`` every token is, as in CLIP (which does not look ahead) and in SigLIP.

    Attributes:
        num_features: Width of the vectors.
    """

    def __init__(self, model: nn.Module, pad_token: int | None = None) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.num_features = int(config.hidden_size)
        self.context_length = getattr(config, "max_position_embeddings", None)
        self.pad_token = pad_token

    def forward(self, numbers: Tensor) -> Tensor:
        """Features ``(N, F)`` of token numbers ``(N, L)``."""
        shown = torch.ones_like(numbers) if self.pad_token is None else numbers != self.pad_token
        shown = shown.long()
        shown[:, 0] = 1  # an empty text still has its first token
        output: Any = self.model(input_ids=numbers, attention_mask=shown)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled
        weights = shown.unsqueeze(2).to(output.last_hidden_state.dtype)
        mean: Tensor = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
        return mean


class HuggingFaceTokenizer:
    """A tokenizer of Hugging Face as the methods call it: from texts to token numbers of one length.

    Args:
        tokenizer: A ``PreTrainedTokenizer`` with a padding token.
        context_length: Tokens of a row.

    Attributes:
        vocab_size: Tokens, added ones included.
    """

    def __init__(self, tokenizer: Any, context_length: int = 77) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.vocab_size = len(tokenizer)

    def __call__(self, texts: list[str]) -> Tensor:
        """Token numbers, int64 ``(N, context_length)``."""
        made = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        numbers: Tensor = made["input_ids"]
        return numbers
