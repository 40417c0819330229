"""Small networks, probes, wrappers, decoders, and encoders of the three libraries."""

import pytest
import timm
import torch
from spt_methods import backbones, methods
from spt_methods.backbones.channels import adapted_kernel
from torch import nn
from torch.nn import functional as F

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_conv_mixer_is_the_papers():
    """Written as the paper's appendix, with its order of GELU and BatchNorm."""

    class Residual(nn.Module):
        def __init__(self, fn):
            super().__init__()
            self.fn = fn

        def forward(self, x):
            return self.fn(x) + x

    def paper(dim, depth, kernel_size, patch_size, n_classes):
        return nn.Sequential(
            nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size),
            nn.GELU(), nn.BatchNorm2d(dim),
            *[nn.Sequential(
                Residual(nn.Sequential(
                    nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"),
                    nn.GELU(), nn.BatchNorm2d(dim))),
                nn.Conv2d(dim, dim, kernel_size=1), nn.GELU(), nn.BatchNorm2d(dim),
            ) for _ in range(depth)],
            nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, n_classes),
        )  # fmt: skip

    ours, theirs = backbones.ConvMixer(dim=8, depth=2, patch_size=4), paper(8, 2, 9, 4, 10)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    torch.testing.assert_close(ours(IMAGES), theirs(IMAGES))


def test_resnet9_has_the_widths_and_trains():
    model = backbones.Resnet9(10, 3)
    out = model(IMAGES)
    assert out.shape == (2, 10)
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [
        64, 128, 128, 128, 256, 256, 256,
    ]  # fmt: skip
    module = methods.SimCLR(backbones.Resnet9(0, 3), projector_dims=(8, 4))
    assert module.features == 1024


def test_linear_probe():
    tokens = torch.randn(4, 5, 8)
    for pooling, expected in (("cls", tokens[:, 0]), ("mean", tokens.mean(1))):
        probe = backbones.LinearProbe(8, 3, pooling)
        torch.testing.assert_close(probe(tokens), probe.linear(expected))
    normed = backbones.LinearProbe(8, 3, None, nn.BatchNorm1d)
    x = tokens[:, 0]
    torch.testing.assert_close(normed(x), normed.linear(F.batch_norm(x, None, None, training=True)))
    with pytest.raises(ValueError, match=r"Features of shape \(4, 5, 8\) need `pooling='cls'`"):
        normed(tokens)
    with pytest.raises(ValueError, match="`pooling` must be 'cls', 'mean' or None, got 'max'"):
        backbones.LinearProbe(8, 3, "max")


def test_the_attentive_probe_starts_as_the_mean_and_learns_where_to_look():
    torch.manual_seed(0)
    tokens = torch.randn(64, 7, 16)
    labels = (tokens[:, 3, 0] > 0).long()
    tokens[:, 3, 1] = 4.0  # the place to look at
    probe = backbones.MultiHeadAttentiveProbe(16, 2)
    torch.testing.assert_close(probe.weights(tokens), torch.full((64, 4, 7), 1 / 7))
    optimizer = torch.optim.Adam(probe.parameters(), 0.05)
    for _ in range(60):
        loss = F.cross_entropy(probe(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert probe.weights(probe.norm(tokens)).mean(0).max(0).values.argmax() == 3


def test_the_grid_of_classifiers_is_each_alone():
    torch.manual_seed(0)
    x, y = torch.randn(8, 5), torch.arange(8) % 3
    grid = backbones.AutoLinearClassifier(
        "probe", 5, 3, weight_decay=[0, 0.1], lr_scaling=[1, 0.5], dropout=[0.0],
        label_smoothing=[0, 1.5],
    ).eval()  # fmt: skip
    assert len(grid.variants) == 2 * 2 * 3 * 2
    assert len({v.key for v in grid.variants}) == len(grid.variants)
    assert not any("." in v.key for v in grid.variants)
    grid.train()
    total = 0.0
    made = {"none": x, "norm": F.layer_norm(x, (5,)),
            "bn": F.batch_norm(x, None, None, training=True)}  # fmt: skip
    for variant, w, b in zip(grid.variants, grid.weights, grid.biases, strict=True):
        logits = F.linear(made[variant.normalization], w, b)
        total = total + F.cross_entropy(logits, y, label_smoothing=variant.label_smoothing / 3)
    torch.testing.assert_close(grid(x, y), total)
    groups = grid.parameter_groups(0.2)
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {
        (0.2, 0.0), (0.1, 0.0), (0.2, 0.1), (0.1, 0.1),
    }  # fmt: skip
    assert sum(len(g["params"]) for g in groups) == len(list(grid.parameters()))
    logged = {}

    class Log:
        def log(self, name, value, **_):
            logged[name] = value

    grid.eval()(x, y, Log())
    assert len(logged) == 24
    assert all(k.startswith("eval/probe_") and k.endswith("_top1") for k in logged)
    with pytest.raises(ValueError, match=r"`normalization` must hold .* got \['l2'\]"):
        backbones.AutoLinearClassifier("p", 5, 3, normalization=["l2"])


def test_the_grid_of_mlps():
    grid = backbones.AutoTuneMLP(
        4, 2, [[], [8], [8, 8]], "mlp", nn.MSELoss(), lr_scaling=[1.0, 0.1],
        additional_weight_decay=[0.0, 0.01], normalization=["none", "batch_norm"],
        dropout=[0.0, 0.5], activation=["relu", "gelu"],
    )  # fmt: skip
    assert grid.num_variants == 4 + 2 * 4 * 8  # a linear layer has no norm to vary
    out = grid(torch.randn(6, 4), torch.randn(6, 2))
    losses = {k: v for k, v in out.items() if k.startswith("loss/")}
    torch.testing.assert_close(out["loss"], torch.stack(list(losses.values())).sum())
    best = grid.get_best_variant({"a": 2.0, "b": 1.0})
    assert best == "b"
    assert {(g["lr"], g["weight_decay"]) for g in grid.parameter_groups(1.0)} == {
        (1.0, 0.0), (0.1, 0.0), (1.0, 0.01), (0.1, 0.01),
    }  # fmt: skip
    assert isinstance(grid.get_variant(grid.keys()[0]), nn.Sequential)
    with pytest.raises(KeyError, match="There is no variant 'x'"):
        grid.get_variant("x")
    with pytest.raises(ValueError, match=r"`activation` must be among .* got \['step'\]"):
        backbones.AutoTuneMLP(4, 2, [[]], "m", nn.MSELoss(), activation=["step"])


def test_aggregation_of_every_shape():
    aggregate = backbones.TensorAggregator
    tokens, maps, video = torch.randn(2, 5, 3), torch.randn(2, 4, 6, 6), torch.randn(2, 4, 2, 6, 6)
    torch.testing.assert_close(aggregate("cls")(tokens), tokens[:, 0])
    torch.testing.assert_close(aggregate("mean")(maps), maps.mean((2, 3)))
    torch.testing.assert_close(aggregate("max")(video), video.amax((2, 3, 4)))
    assert aggregate("adaptive", 2)(maps).shape == (2, 16)
    assert aggregate("adaptive", 2)(tokens).shape == (2, 6)
    joined = aggregate(["mean", "cls"])([maps, tokens])
    torch.testing.assert_close(joined, torch.cat([maps.mean((2, 3)), tokens[:, 0]], 1))
    named = aggregate({"b": "mean", "a": "flatten"})
    torch.testing.assert_close(
        named({"b": maps, "a": tokens}), torch.cat([tokens.flatten(1), maps.mean((2, 3))], 1)
    )
    assert named.compute_output_dim({"b": (4, 6, 6), "a": (5, 3)}) == 19
    concat = backbones.FeaturesConcat("mean", ["b"])
    torch.testing.assert_close(concat({"a": tokens, "b": maps}), maps.mean((2, 3)))
    assert backbones.FeaturesConcat.get_output_shape("mean", [(4, 6, 6), (5, 3)]) == (7,)
    with pytest.raises(ValueError, match=r"The mode 'cls' does not fit .*\(2, 4, 6, 6\)"):
        aggregate("cls")(maps)
    with pytest.raises(ValueError, match=r"Modes must be among .* got \['sum'\]"):
        aggregate("sum")
    with pytest.raises(ValueError, match=r"The input lacks \['a'\]; it holds \['b'\]"):
        named({"b": maps})
    with pytest.raises(ValueError, match="There are 2 modes and 1 tensors"):
        aggregate(["mean", "cls"])([maps])


def test_eval_only_stays_frozen():
    inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    inner.hidden_size = 7
    frozen = backbones.EvalOnly(inner).train()
    assert not inner[1].training
    assert frozen.hidden_size == 7
    assert not any(p.requires_grad for p in frozen.parameters())
    before = inner[1].running_mean.clone()
    frozen(torch.randn(4, 2))
    assert torch.equal(inner[1].running_mean, before)
    inner.train()
    with pytest.raises(RuntimeError, match="Sequential inside EvalOnly is in training mode"):
        frozen(torch.randn(4, 2))
    with pytest.raises(AttributeError, match="nothing"):
        _ = frozen.nothing


def test_hidden_states():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    extractor = backbones.HiddenStateExtractor(net, ["0", "1"])
    x = torch.randn(4, 2)
    out = extractor(x)
    torch.testing.assert_close(out["last_hidden_state"], net(x))
    torch.testing.assert_close(out["hidden_states"]["1"], net[0](x).relu())
    extractor.remove_hooks()
    assert extractor(x)["hidden_states"] == {}
    with pytest.raises(
        ValueError, match=r"no submodules \['9'\]; its children are \['0', '1', '2'"
    ):
        backbones.HiddenStateExtractor(net, ["9"])


def test_videos_frame_by_frame_and_running_means():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    videos = torch.randn(2, 5, 3, 2, 2)
    out = backbones.ImageToVideoEncoder(encoder)(videos)
    torch.testing.assert_close(out[1, 3], encoder(videos[1, 3:4])[0])
    mean = backbones.EMA(0.25)
    assert mean(torch.tensor([4.0])).item() == 4.0
    assert mean(torch.tensor([0.0])).item() == 3.0
    other = backbones.EMA(0.25)
    other.load_state_dict(mean.state_dict())
    assert other(torch.tensor([3.0])).item() == 3.0
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, 1\], got 2"):
        backbones.EMA(2)


def test_layers():
    x = torch.randn(4, 3)
    torch.testing.assert_close(backbones.L2Norm()(x).norm(dim=1), torch.ones(4))
    assert backbones.Normalize()(x).square().mean().item() == pytest.approx(1.0)
    norm = backbones.BatchNorm1dNoBias(3)
    norm(x).sum().backward()
    assert norm.bias.grad is None


def test_decoders_make_images():
    cnn = backbones.build_image_decoder(
        6, (1, 32, 32), decoder_kwargs={"base_channels": 32, "num_res_blocks": 1}
    )
    assert cnn(torch.randn(2, 6)).shape == (2, 1, 32, 32)
    vit = backbones.build_image_decoder(
        6, (3, 16, 16), patch_size=4, decoder_kwargs={"decoder_dim": 16, "depth": 1, "num_heads": 2}
    )
    out = vit(torch.randn(2, 16, 6))
    assert out.shape == (2, 3, 16, 16)
    out.sum().backward()
    assert all(p.grad is not None for p in vit.parameters())
    with pytest.raises(ValueError, match="must be `start_size` times a power of two, got 24 and 4"):
        backbones.CNNImageDecoder(6, 24)
    with pytest.raises(ValueError, match="`patch_size` 5 must divide `img_size`, got 16"):
        backbones.ViTImageDecoder(6, 16, 5)
    with pytest.raises(ValueError, match=r"must be square, got \(3, 8, 16\)"):
        backbones.build_image_decoder(6, (3, 8, 16))
    with pytest.raises(ValueError, match="with a `patch_size`, got 'vit'"):
        backbones.build_image_decoder(6, (3, 16, 16), "vit")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_other_channels_keep_what_was_learned(name):
    grey = IMAGES[:, :1]
    torch.manual_seed(0)
    colour = backbones.from_torchvision(name).eval()
    torch.manual_seed(0)
    one = backbones.from_torchvision(name, in_channels=1).eval()
    one.load_state_dict({k: v for k, v in colour.state_dict().items()
                         if v.shape == one.state_dict()[k].shape}, strict=False)  # fmt: skip
    with torch.no_grad():  # the same weights, summed over colours
        torch.testing.assert_close(
            one(grey), colour(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
        )
        five = backbones.from_torchvision(name, in_channels=5).eval()
        assert five(torch.rand(2, 5, 32, 32)).shape == one(grey).shape


def test_kernels_of_more_channels_keep_the_size_of_the_response():
    weight = torch.randn(4, 3, 2, 2)
    wide = adapted_kernel(weight, 7)
    torch.testing.assert_close(wide[:, 3:6], wide[:, :3])
    torch.testing.assert_close(wide[:, :3] * 7 / 3, weight)


def test_torchvision_heads_of_any_kind_are_replaced():
    model = backbones.from_torchvision("vit_b_32", image_size=32, num_classes=5)
    assert model(IMAGES).shape == (2, 5)
    assert backbones.from_torchvision("swin_t", num_classes=0)(IMAGES).shape == (2, 768)
    with pytest.raises(ValueError, match="'squeezenet1_0' has no linear head"):
        backbones.from_torchvision("squeezenet1_0")


def test_timm_weights_give_timms_output():
    torch.manual_seed(0)
    for name, kwargs in (("resnet10t", {}), ("vit_tiny_patch16_224", {"img_size": 32})):
        theirs = timm.create_model(name, num_classes=0, **kwargs).eval()
        ours = backbones.from_timm(name, num_classes=0, **kwargs).eval()
        ours.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            assert torch.equal(ours(IMAGES), theirs(IMAGES))
    assert backbones.from_timm("resnet10t", in_channels=1, num_classes=0)(IMAGES[:, :1]).shape == (
        2,
        512,
    )


def test_hugging_faces_transformer_is_an_encoder():
    pytest.importorskip("transformers")
    small = {"num_hidden_layers": 1}
    model = backbones.vit_hf("tiny", patch_size=8, image_size=32, **small)
    state = model(pixel_values=IMAGES)
    assert state.last_hidden_state.shape == (2, 17, 192)
    encoder = backbones.HuggingFaceEncoder(model)
    out = backbones.tokens_of(encoder, IMAGES)
    torch.testing.assert_close(out.embedding, state.last_hidden_state[:, 0])
    torch.testing.assert_close(out.patches, state.last_hidden_state[:, 1:])
    assert encoder(IMAGES[..., :16, :16]).shape == (2, 192)  # another size
    masked = encoder.tokens(IMAGES, torch.ones(2, 16, dtype=torch.bool))
    assert not torch.allclose(masked.patches, out.patches)
    module = methods.SimCLR(encoder, projector_dims=(8, 4))
    batch = {"views": [{"image": IMAGES}, {"image": IMAGES.flip(-1)}]}
    module(batch, "fit")["loss"].backward()
    unused = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == ["backbone.model.embeddings.mask_token"]  # nothing was masked
    with pytest.raises(ValueError, match="`size` must be one of .* got 'mini'"):
        backbones.vit_hf("mini")


def test_a_hugging_face_folder_loads(tmp_path):
    pytest.importorskip("transformers")
    made = backbones.vit_hf("tiny", patch_size=8, image_size=32, num_hidden_layers=1).eval()
    made.save_pretrained(tmp_path)
    loaded = backbones.from_huggingface(str(tmp_path)).eval()
    torch.testing.assert_close(
        loaded(pixel_values=IMAGES).last_hidden_state, made(pixel_values=IMAGES).last_hidden_state
    )
    fresh = backbones.from_huggingface(str(tmp_path), pretrained=False)
    assert type(fresh).__name__ == "ViTModel"
