"""DeiT's recipe: mixed images, mixed smooth labels, and the plain task in evaluation."""

import pytest
import torch
from spt_methods import methods
from torch import nn
from torch.nn import functional as F


class Encoder(nn.Module):
    num_features = 12

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16, 12)

    def forward(self, x):
        return torch.tanh(self.linear(x.flatten(1)))


G = torch.Generator().manual_seed(0)
BATCH = {"image": torch.rand(6, 3, 4, 4, generator=G), "label": torch.tensor([0, 1, 2, 3, 0, 1])}


def build(**kwargs):
    torch.manual_seed(0)
    return methods.DeiT(Encoder(), num_classes=4, **kwargs).train()


def smooth(labels, s, k=4):
    rows = torch.full((len(labels), k), s / k)
    rows[torch.arange(len(labels)), labels] += 1 - s
    return rows


def explained(mixed, images, kind):
    """``(image, partner, share)`` of each image that another one is mixed into, from pixels alone."""
    found = []
    for i in range(len(images)):
        for j in range(len(images)):
            changed = mixed[i] != images[i]
            if i == j or not changed.any():
                continue
            if kind == "mixup_alpha":
                part = (mixed[i] - images[i]) / (images[j] - images[i])
                if part.std() < 1e-3:
                    found.append((i, j, 1 - part.mean().item()))
            elif torch.equal(mixed[i][changed], images[j][changed]):
                found.append((i, j, 1 - changed[0].float().mean().item()))
    return found


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_training_mixes_images_and_smooth_labels_by_one_share(kind):
    other = {"mixup_alpha": "cutmix_alpha", "cutmix_alpha": "mixup_alpha"}[kind]
    module = build(**{other: 0.0}, label_smoothing=0.2)
    seen, pairs = [], 0
    module.backbone.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    images, labels = BATCH["image"], BATCH["label"]
    own = smooth(labels, 0.2)
    for _ in range(6):
        state = module(BATCH, "fit")
        found = explained(seen.pop(), images, kind)
        share = found[0][2] if found else 1.0  # a rectangle may be empty
        assert all(x[2] == pytest.approx(share, abs=1e-3) for x in found)
        partner = torch.arange(6)
        for i, j, _ in found:
            partner[i] = j
        target = share * own + (1 - share) * own[partner]
        expected = -(target * state["logits"].log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(state["loss"], expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(state["label"], labels)  # as they came, for probes
        pairs += len(found)
    assert pairs >= 10


def test_evaluation_is_plain_cross_entropy_and_needs_no_labels():
    module = build().eval()
    state = module(BATCH, "validate")
    expected = F.cross_entropy(module.classifier(module.backbone(BATCH["image"])), BATCH["label"])
    torch.testing.assert_close(state["loss"], expected)
    assert set(module({"image": BATCH["image"]}, "predict")) == {"embedding", "logits"}
    with pytest.raises(ValueError, match=r"needs 'label' in the batch; it holds \['image'\]"):
        module({"image": BATCH["image"]}, "fit")


def test_mixing_can_be_rare():
    module = build(mix_prob=0.0, label_smoothing=0.1)
    state = module(BATCH, "fit")
    target = smooth(BATCH["label"], 0.1)
    expected = -(target * state["logits"].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(state["loss"], expected)


def test_what_comes_mixed_is_not_mixed_again():
    module = build()
    target = smooth(BATCH["label"], 0.3)
    state = module({"image": BATCH["image"], "label": target}, "fit")
    torch.testing.assert_close(state["embedding"], module.backbone(BATCH["image"]))
    expected = -(target * state["logits"].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(state["loss"], expected)
