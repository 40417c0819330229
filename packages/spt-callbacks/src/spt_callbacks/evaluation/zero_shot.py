"""Zero-shot classification by the text of class names.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
section 3.1 (https://arxiv.org/abs/2103.00020); the prompt ensemble of its official notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_callbacks.keys import Key, check_rows, expose, find, look_up
from spt_callbacks.metrics import StageMetrics
from spt_callbacks.named import NamedCallback

Encoder = Callable[..., Any] | str


def zero_shot_weights(prompts: Tensor) -> Tensor:
    """One unit vector per class from the embeddings of its prompts.

    Each prompt is brought to unit length, the prompts of a class are averaged, and the mean is
    brought to unit length again.

    Args:
        prompts: ``(C, P, D)``.

    Returns:
        ``(C, D)``.

    Raises:
        ValueError: If the shape is another.
    """
    if prompts.ndim != 3:
        raise ValueError(f"`prompts` must have shape (C, P, D), got {tuple(prompts.shape)}.")
    return F.normalize(F.normalize(prompts, dim=-1).mean(1), dim=-1)


def zero_shot_logits(images: Tensor, weights: Tensor, *, scale: float = 100.0) -> Tensor:
    """Scaled cosines of images and classes.

    Args:
        images: ``(N, D)``.
        weights: Unit vectors ``(C, D)`` of :func:`zero_shot_weights`.
        scale: The inverse temperature; trained CLIP models have 100.

    Returns:
        ``(N, C)``.
    """
    return scale * F.normalize(images, dim=-1) @ weights.T


class CLIPZeroShot(NamedCallback):
    """Classify validation images by the text embeddings of the class names, as they are now.

    The classes are encoded again at the start of each validation, in evaluation mode and without
    gradient. Logs ``eval/{name}_{metric}``, ``eval/{name}_acc`` (and ``top5``) by default, and
    ``test/...`` in testing. The logits are put into the step's dict as ``{name}_preds``.

    Args:
        name: Name in the logs.
        image_key: Key of the images, or of their embeddings if ``image_backbone`` is ``None``.
        class_key: Key of the classes ``(N,)``, integers; a list of integers will do.
        class_names: Names, in the order of the classes.
        image_backbone: From images to embeddings, or to something with ``image_embeds``. A module,
            a function, or the name of an attribute of the LightningModule; dots descend.
        text_backbone: From tokens to embeddings, or to something with ``text_embeds``; as above.
        tokenizer_fn: From a list of strings to tokens: a tensor, or a mapping of arguments.
        metrics: torchmetrics metrics of logits ``(N, C)``.
        templates: Prompts, each with one ``{}`` for the class name.
        logit_scale: Factor of the cosines.
        chunk_size: Prompts encoded at once.

    Raises:
        ValueError: If there is no class or a template has no place for its name.
    """

    def __init__(
        self,
        name: str,
        image_key: Key,
        class_key: Key,
        class_names: Sequence[str],
        image_backbone: Encoder | None,
        text_backbone: Encoder,
        tokenizer_fn: Callable[[list[str]], Any],
        metrics: Any = None,
        *,
        templates: Sequence[str] = ("{}",),
        logit_scale: float = 100.0,
        chunk_size: int = 512,
    ) -> None:
        if not class_names:
            raise ValueError(f"`class_names` of CLIPZeroShot {name!r} must not be empty.")
        wrong = [template for template in templates if "{}" not in template]
        if wrong or not templates:
            raise ValueError(
                f"`templates` must each have a {{}} for the class name, got {wrong or 'none'}."
            )
        self.name = name
        self.image_key = image_key
        self.class_key = class_key
        self.class_names = list(class_names)
        self.image_backbone = image_backbone
        self.text_backbone = text_backbone
        self.tokenizer_fn = tokenizer_fn
        self.templates = list(templates)
        self.logit_scale = logit_scale
        self.chunk_size = chunk_size
        self.metrics = StageMetrics(metrics)
        self.weights: Tensor | None = None

    @torch.no_grad()
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Encode the class names."""
        encoder = _resolve(self.text_backbone, pl_module)
        prompts = [t.replace("{}", name) for name in self.class_names for t in self.templates]
        parts = []
        with _evaluating(encoder, pl_module.device), trainer.precision_plugin.forward_context():
            for start in range(0, len(prompts), self.chunk_size):
                tokens = self.tokenizer_fn(prompts[start : start + self.chunk_size])
                tokens = pl_module.transfer_batch_to_device(tokens, pl_module.device, 0)
                found = encoder(**tokens) if isinstance(tokens, Mapping) else encoder(tokens)
                parts.append(getattr(found, "text_embeds", found).float())
        rows = torch.cat(parts)
        self.weights = zero_shot_weights(
            rows.view(len(self.class_names), len(self.templates), rows.shape[1])
        )

    on_test_epoch_start = on_validation_epoch_start

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Classify this batch."""
        images = look_up(self.image_key, outputs, batch, self.caller)
        classes = torch.as_tensor(find(self.class_key, outputs, batch, self.caller))
        check_rows(images, classes, (self.image_key, self.class_key), self.caller)
        if self.image_backbone is not None:
            encoder = _resolve(self.image_backbone, pl_module)
            with _evaluating(encoder, pl_module.device), trainer.precision_plugin.forward_context():
                found = encoder(images)
            images = getattr(found, "image_embeds", found)
        assert self.weights is not None
        with torch.autocast(images.device.type, enabled=False):
            logits = zero_shot_logits(images.float(), self.weights, scale=self.logit_scale)
        expose(outputs, f"{self.name}_preds", logits, self.caller)
        classes = classes.to(logits.device)
        self.metrics.judge(trainer, logits, classes, batch_idx, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch."""
        self.weights = None
        self.metrics.log(pl_module, f"eval/{self.name}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the test."""
        self.weights = None
        self.metrics.log(pl_module, f"test/{self.name}")


def _resolve(encoder: Encoder, pl_module: pl.LightningModule) -> Callable[..., Any]:
    found: Callable[..., Any]
    found = attrgetter(encoder)(pl_module) if isinstance(encoder, str) else encoder
    return found


@contextmanager
def _evaluating(encoder: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """The encoder on the device and in evaluation mode; afterwards in the modes it had."""
    if not isinstance(encoder, nn.Module):
        yield
        return
    if any(p.device != device for p in encoder.parameters()):
        with torch.inference_mode(False):
            encoder.to(device)
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
