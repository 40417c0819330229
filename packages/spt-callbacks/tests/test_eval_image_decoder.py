"""Decoders: their shapes, their parts, and images that come back."""

import pytest
import torch
from spt_callbacks import OnlineImageDecoder
from spt_callbacks.evaluation._decoders import CNNDecoder, ViTDecoder, sine_places, unpatchify
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

SMALL = {"width": 32, "least_width": 16}


def images(n=24):
    """A left or a right half that is bright, by the first feature."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(n):
        picture = torch.zeros(1, 8, 8)
        picture[:, :, 4 * (i % 2) : 4 * (i % 2) + 4] = 1.0
        x = torch.randn(8, generator=generator) * 0.1
        x[0] = 2.0 * (i % 2) - 1
        rows.append({"x": x, "label": i % 2, "picture": picture})
    return rows


def test_patches_go_where_they_came_from():
    picture = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    patches = picture.unfold(2, 4, 4).unfold(3, 4, 4)  # (N, C, h, w, p, q)
    assert torch.equal(unpatchify(patches.permute(0, 2, 3, 4, 5, 1)), picture)


def test_places_are_the_sines_of_row_and_column():
    code = sine_places(3, 8)
    for row in range(3):
        for column in range(3):
            parts = [
                [f(torch.tensor(p / 10000 ** (k / 2))).item() for f in (torch.sin, torch.cos)]
                for p in (row, column)
                for k in range(2)
            ]
            by_row, by_column = parts[:2], parts[2:]
            expected = [v[i] for half in (by_row, by_column) for i in (0, 1) for v in half]
            assert code[3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_shapes_of_both_decoders():
    assert CNNDecoder(5, (3, 16, 16), **SMALL)(torch.randn(2, 5)).shape == (2, 3, 16, 16)
    tokens = torch.randn(2, 16, 5)
    decoder = ViTDecoder(5, (3, 16, 16), 4, decoder_dim=16, depth=1, num_heads=2)
    assert decoder(tokens).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"patch tokens .*\(N, 16, 5\), got \(2, 17, 5\)"):
        decoder(torch.randn(2, 17, 5))
    with pytest.raises(ValueError, match=r"vectors \(N, D\) of shape \(N, 5\), got \(2, 16, 5\)"):
        CNNDecoder(5, (3, 16, 16), **SMALL)(tokens)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_images_come_back(plain, make_trainer, kind):
    settings = {"decoder_kwargs": SMALL}
    if kind == "vit":
        small = {"decoder_dim": 16, "depth": 1, "num_heads": 2}
        settings = {"patch_size": 4, "decoder_kwargs": small}
    decoder = OnlineImageDecoder(
        input=(lambda _, batch: batch["x"][:, None].expand(-1, 4, -1)) if kind == "vit" else "x",
        target="picture",
        image_shape=(1, 8, 8),
        embed_dim=8,
        optimizer={"type": "Adam", "lr": 5e-3},
        **settings,
    )
    assert decoder.kind == kind
    torch.manual_seed(0)
    loader = DataLoader(images(), 8)
    trainer = make_trainer([decoder], max_epochs=25)
    module = plain()
    keys = set(module.state_dict())
    trainer.fit(module, loader, loader)
    assert trainer.callback_metrics["eval/decoder_MeanSquaredError"] < 0.05  # a grey image has 0.25
    assert "train/decoder_loss" in trainer.callback_metrics
    assert set(module.state_dict()) == keys
    (first, *_) = trainer.predict(module, loader) if kind == "cnn" else ({},)
    assert kind == "vit" or first["decoder_preds"].shape == (8, 1, 8, 8)


def test_wrong_shapes_are_named(plain, make_trainer):
    with pytest.raises(ValueError, match=r"`image_shape` must be .* H = W, got \(1, 8, 4\)"):
        OnlineImageDecoder(image_shape=(1, 8, 4), embed_dim=8)
    with pytest.raises(ValueError, match='`kind` must be "auto", "cnn" or "vit", got \'gan\''):
        OnlineImageDecoder(image_shape=(1, 8, 8), embed_dim=8, kind="gan")
    with pytest.raises(ValueError, match="needs `patch_size`"):
        OnlineImageDecoder(image_shape=(1, 8, 8), embed_dim=8, kind="vit")
    with pytest.raises(ValueError, match="`patch_size` must divide the image's side 8, got 3"):
        OnlineImageDecoder(image_shape=(1, 8, 8), embed_dim=8, patch_size=3)
    with pytest.raises(ValueError, match=r"doubles 4 until .* got `image_shape=\(1, 12, 12\)`"):
        OnlineImageDecoder(image_shape=(1, 12, 12), embed_dim=8)
    decoder = OnlineImageDecoder(
        None, "d", "x", "picture", image_shape=(1, 4, 4), embed_dim=8, decoder_kwargs=SMALL
    )
    message = (
        r"OnlineImageDecoder 'd' decodes 'x' to \(8, 1, 4, 4\), but 'picture' has shape \(8, 1, 8"
    )
    with pytest.raises(ValueError, match=message):
        make_trainer([decoder]).fit(plain(), DataLoader(images(), 8))
