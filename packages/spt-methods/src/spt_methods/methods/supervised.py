"""Supervised classification or regression, the baseline of every comparison, and DeiT's recipe for it.

Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML
2021. https://arxiv.org/abs/2012.12877; official code https://github.com/facebookresearch/deit.
"""

from __future__ import annotations

from typing import Any

from spt_augment import RandomMixupCutmix
from torch import nn
from torch.nn import functional as F

from spt_methods.methods._groups import UNDECAYED_TOKENS
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def supervised(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the label of each image.

    Needs: ``backbone``, ``classifier``, ``supervised_loss``; optionally ``mix``, which mixes images and
    labels in ``fit`` (:class:`spt_augment.RandomMixupCutmix`), unless they come mixed from the data.
    Reads: ``image`` ``(N, C, H, W)``, one view or several; ``label`` ``(N,)``, or mixed ``(N, K)``,
    required in ``fit``.
    Writes: ``embedding`` ``(V * N, F)``, ``logits`` ``(V * N, K)``, and with labels ``label`` and ``loss``
    in every stage.
    """
    views = views_of(batch)
    images, found = images_of(views), labels_of(batch, views)
    target = found.get("label")
    if stage == "fit" and target is None:
        held = sorted({str(key) for view in views for key in view})
        raise ValueError(f"supervised training needs 'label' in the batch; it holds {held}.")
    mix = getattr(self, "mix", None)
    mixed = target is not None and target.ndim == 2 and target.is_floating_point()
    if stage == "fit" and mix is not None and not mixed:
        images, target = mix(images, target)
    embedding = self.backbone(images)
    state: State = {"embedding": embedding, "logits": self.classifier(embedding), **found}
    if target is not None:
        state["loss"] = self.supervised_loss(state["logits"], target)
    return state


class DeiT(Method):
    """Supervised training of any encoder with Mixup, CutMix, smooth labels and stochastic depth.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        num_classes: K.
        mixup_alpha: Of Mixup's Beta(a, a); 0 for CutMix alone.
        cutmix_alpha: Of CutMix's Beta(a, a); 0 for Mixup alone.
        mix_prob: Share of the batches that are mixed.
        switch_prob: Share of CutMix among them.
        label_smoothing: Mass that is spread over all classes.
        drop_path_rate: Stochastic depth.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 5e-4 for a batch of 512, decay 0.05.

    Note:
        DeiT without distillation. Partners of Mixup and CutMix are a random permutation of the batch,
        in the official code its reverse. Repeated augmentation, RandAugment and random erasing
        belong to the data: the recipe ``deit`` of ``spt_data`` and ``spt_augment`` has the latter two.
        It mixes too; what comes with mixed labels ``(N, K)`` is not mixed again.
    """

    paper = Recipe(
        "AdamW", 5e-4, 0.05, batch=1024, epochs=300, warmup_epochs=5, base_batch=512, end_lr=1e-5,
        augmentation="deit", options=UNDECAYED_TOKENS,
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "deit_small_patch16_224",
        num_classes: int = 1000,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        mix_prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        drop_path_rate: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(
            supervised,
            encoder_name,
            drop_path_rate=drop_path_rate if isinstance(encoder_name, str) else 0.0,
            **common,
        )
        self.classifier = nn.Linear(self.features, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self.mix = RandomMixupCutmix(
            num_classes, mixup_alpha, cutmix_alpha, mix_prob, switch_prob, label_smoothing
        )
        self.supervised_loss = F.cross_entropy
