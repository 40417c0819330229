"""Supervised classification or regression, the baseline of every comparison."""

from __future__ import annotations

from typing import Any

from spt_methods.views import Stage, State, images_of, labels_of, views_of


def supervised(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the label of each image.

    Needs: ``backbone``, ``classifier``, ``supervised_loss``.
    Reads: ``image`` ``(N, C, H, W)``, one view or several; ``label`` ``(N,)``, required in ``fit``.
    Writes: ``embedding`` ``(V * N, F)``, ``logits`` ``(V * N, K)``, and with labels ``label`` and ``loss``
    in every stage.
    """
    views = views_of(batch)
    embedding = self.backbone(images_of(views))
    state: State = {"embedding": embedding, "logits": self.classifier(embedding)}
    state.update(labels_of(batch, views))
    if "label" in state:
        state["loss"] = self.supervised_loss(state["logits"], state["label"])
    elif stage == "fit":
        held = sorted({str(key) for view in views for key in view})
        raise ValueError(f"supervised training needs 'label' in the batch; it holds {held}.")
    return state
