"""Zero-shot classification against the official code, and with text that is still being learned."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from spt_callbacks import CLIPZeroShot
from spt_callbacks.evaluation.zero_shot import zero_shot_logits, zero_shot_weights
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

GOLDEN = Path(__file__).parent / "golden"


def test_weights_and_logits_are_those_of_the_official_code():
    golden = np.load(GOLDEN / "clip_zeroshot.npz")
    values = json.loads((GOLDEN / "clip_zeroshot.json").read_text())
    weights = zero_shot_weights(torch.tensor(golden["prompt_features"]))
    np.testing.assert_allclose(weights, golden["class_weights"], atol=1e-6)
    images = torch.tensor(golden["image_features"])
    logits = zero_shot_logits(images, weights, scale=100.0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-3)
    hits = logits.argmax(1) == torch.tensor(golden["labels"]).long()
    assert 100 * hits.double().mean().item() == pytest.approx(values["top1_percent"], abs=1e-6)
    assert logits.topk(5).indices.tolist() == golden["pred5"].tolist()
    second = zero_shot_logits(images, weights, scale=values["second_logit_scale"]).softmax(1)
    np.testing.assert_allclose(second, golden["probabilities_second_scale"], atol=1e-5)
    with pytest.raises(ValueError, match=r"`prompts` must have shape \(C, P, D\), got \(3, 4\)"):
        zero_shot_weights(torch.ones(3, 4))


class Text(nn.Module):
    """Embeds ``"a photo of class 2"`` by its last letter, through a weight that training moves."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 8))
        self.drop = nn.Dropout(0.5)
        self.modes = []

    def forward(self, input_ids):
        self.modes.append(self.training)
        return SimpleNamespace(text_embeds=self.drop(self.table[input_ids]))


def tokens(names):
    assert all(name.startswith(("a photo of class ", "class ")) for name in names)
    return {"input_ids": torch.tensor([int(name[-1]) for name in names])}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_classes_are_encoded_again_at_each_validation(plain, loaders, make_trainer, precision):
    class Clip(plain):
        def __init__(self):
            super().__init__()
            self.text = nn.ModuleDict({"tower": Text()})

        def on_train_batch_end(self, outputs, batch, batch_idx):
            for row, label in zip(batch["x"], batch["label"], strict=True):
                self.text["tower"].table.data[label] += row

        def configure_optimizers(self):
            return torch.optim.SGD(self.encoder.parameters(), lr=0.0)

    module = Clip()
    callback = CLIPZeroShot(
        "clip",
        "x",
        "label",
        ["class 0", "class 1", "class 2"],
        image_backbone=lambda x: SimpleNamespace(image_embeds=x),
        text_backbone=module.text["tower"],
        tokenizer_fn=tokens,
        templates=("{}", "a photo of {}"),
    )
    trainer = make_trainer([callback], max_epochs=1, precision=precision, num_sanity_val_steps=0)
    before = trainer.validate(module, loaders[1], verbose=False)[0]["eval/clip_acc"]
    trainer.fit(module, *loaders)
    assert before < 0.5
    assert trainer.callback_metrics["eval/clip_acc"] > 0.95
    assert trainer.test(module, loaders[1], verbose=False)[0]["test/clip_acc"] > 0.95
    assert module.text["tower"].modes == [False] * 3
    assert callback.weights is None


def test_encoders_by_name_and_embeddings_as_they_are(plain, loaders, make_trainer):
    class Clip(plain):
        def __init__(self):
            super().__init__()
            self.towers = nn.ModuleDict({"text": nn.Embedding(3, 6)})

        def validation_step(self, batch, batch_idx):
            return {"image": self.towers["text"](batch["label"]), "cls": batch["label"].tolist()}

    class Named(Clip):
        @property
        def text_tower(self):
            return self.towers["text"]

    callback = CLIPZeroShot(
        "clip", "image", "cls", ["class 0", "class 1", "class 2"], None, "text_tower",
        lambda names: torch.tensor([int(name[-1]) for name in names]), chunk_size=2,
    )  # fmt: skip
    trainer = make_trainer([callback])
    assert trainer.validate(Named(), loaders[1], verbose=False)[0]["eval/clip_acc"] == 1


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"must each have a \{\} for the class name, got \['a'\]"):
        CLIPZeroShot("c", "x", "y", ["a"], None, "t", list, templates=["{} b", "a"])
    with pytest.raises(ValueError, match="`class_names` of CLIPZeroShot 'c' must not be empty"):
        CLIPZeroShot("c", "x", "y", [], None, "t", list)
