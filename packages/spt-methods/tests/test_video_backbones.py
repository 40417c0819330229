"""Encoders of videos: what they may see, their recurrences against loops, and their sizes."""

import pytest
import torch
from spt_methods.backbones import video
from torch import nn
from torch.nn import functional as F

ENCODERS = {
    "cosmos": lambda: video.CosmosEncoder(
        8, (1, 2), 1, attn_stages=(0, 1), temporal_downsample_stages=(0,)
    ),
    "magvit2": lambda: video.MAGVIT2Encoder(8, (1, 2), 1, temporal_downsample_stages=(0,)),
    "predrnn": lambda: video.PredRNNv2(8, 2, patch_size=4),
    "recurrent_vit": lambda: video.RecurrentViT(16, 8, 64, 2),
    "videomamba": lambda: video.VideoMamba(16, 6, (2, 8, 8), 32, 2),
}
SHAPES = {
    "cosmos": (16, 3, 8, 8),
    "magvit2": (16, 3, 8, 8),
    "predrnn": (8, 6, 4, 4),
    "recurrent_vit": (64, 6, 2, 2),
    "videomamba": (32, 3, 2, 2),
}


def clips(n=2, frames=6, side=16, seed=0):
    return torch.randn(n, 3, frames, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ENCODERS)
def test_maps_and_pooled_features(name):
    torch.manual_seed(0)
    net = ENCODERS[name]()
    features = net(clips())
    assert tuple(features.feature_map.shape) == (2, *SHAPES[name])
    assert net.embed_dim == net.num_features == features.feature_map.shape[1]
    wanted = (
        features.feature_map.mean((2, 3, 4)) if features.tokens is None else features.tokens.mean(1)
    )
    torch.testing.assert_close(features.pooled, wanted)
    features.pooled.square().sum().backward()
    silent = [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


@pytest.mark.parametrize("name", ENCODERS)
def test_the_future_changes_nothing(name):
    torch.manual_seed(0)
    net = ENCODERS[name]().eval().double()
    now = clips().double()
    later = now.clone()
    later[:, :, 4:] = clips(seed=1)[:, :, 4:]
    per_frame = lambda z: z.tokens if z.tokens is not None else z.feature_map.transpose(1, 2)  # noqa: E731
    with torch.no_grad():
        a, b = per_frame(net(now)), per_frame(net(later))
    kept = a.shape[1] * 4 // 6  # of the first four frames
    torch.testing.assert_close(a[:, :kept], b[:, :kept], rtol=0, atol=1e-12)
    assert not torch.allclose(a[:, kept:], b[:, kept:])


@pytest.mark.parametrize("name", ["cosmos", "magvit2"])
def test_a_still_video_is_an_image(name):
    torch.manual_seed(0)
    net = ENCODERS[name]().eval().double()
    image = clips(frames=1).double()
    with torch.no_grad():
        still = net(image.expand(-1, -1, 6, -1, -1)).feature_map
        one = net(image).feature_map
    torch.testing.assert_close(still, one.expand_as(still))


def test_other_frames_do_not_enter_a_frames_norm():
    norm = video.GroupNormPerFrame(48, 32)
    assert norm.num_groups == 16
    x = torch.randn(2, 48, 3, 4, 4)
    by_frame = [F.group_norm(x[:, :, t], 16, norm.weight, norm.bias, 1e-6) for t in range(3)]
    torch.testing.assert_close(norm(x), torch.stack(by_frame, 2))


def test_a_causal_convolution_by_hand():
    conv = video.CausalConv3d(2, 3, 3, stride=(2, 1, 1)).double()
    x = torch.randn(1, 2, 5, 4, 4, dtype=torch.float64)
    padded = torch.cat([x[:, :, :1], x[:, :, :1], x], 2)
    wanted = F.conv3d(padded, conv.weight, conv.bias, (2, 1, 1), (0, 1, 1))
    torch.testing.assert_close(conv(x), wanted)
    assert wanted.shape[2] == 3


def scan_by_loop(x, delta, a, b, c):
    h, ys = x.new_zeros(len(x), x.shape[2], a.shape[1]), []
    for t in range(x.shape[1]):
        h = (delta[:, t, :, None] * a).exp() * h
        h = h + (delta[:, t] * x[:, t])[..., None] * b[:, t, None]
        ys.append((h * c[:, t, None]).sum(-1))
    return torch.stack(ys, 1)


@pytest.mark.parametrize("length", [1, 5, 64, 150])
def test_the_scan_is_the_recurrence(length):
    torch.manual_seed(length)
    x, b, c = (torch.randn(2, length, k, dtype=torch.float64) for k in (3, 4, 4))
    delta = torch.rand(2, length, 3, dtype=torch.float64)
    a = -torch.rand(3, 4, dtype=torch.float64) * 20
    inputs = [z.requires_grad_() for z in (x, delta, a, b, c)]
    ours, theirs = video.selective_scan(*inputs), scan_by_loop(*inputs)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in (ours, theirs)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("name", "millions"), [("tiny", 7), ("small", 26), ("base", 74)])
def test_published_sizes_of_videomamba(name, millions):
    with torch.device("meta"):
        net = getattr(video, f"videomamba_{name}")(causal=False)
    count = sum(p.numel() for p in net.parameters())
    assert abs(count / 1e6 - millions) < 1


def test_both_directions_see_everything():
    torch.manual_seed(0)
    net = video.VideoMamba(16, 6, (2, 8, 8), 32, 2, causal=False).eval()
    now = clips()
    later = now.clone()
    later[:, :, 4:] = 0
    with torch.no_grad():
        a, b = net(now).feature_map, net(later).feature_map
    assert not torch.allclose(a[:, :, 0], b[:, :, 0])


def test_first_step_sizes_are_those_of_mamba():
    space = video.VideoMamba(16, 2, (1, 8, 8), 64, 1).blocks[0].forwards
    steps = F.softplus(space.step.bias)
    assert steps.min() > 0.9e-3
    assert steps.max() < 0.11
    torch.testing.assert_close(-space.log_decay.exp(), -torch.arange(1, 17.0).expand(128, 16))


def test_the_cell_of_predrnn_by_its_equations():
    torch.manual_seed(0)
    d = 3
    cell = video.PredRNNv2(d, 2, kernel_size=1, in_channels=d, use_ghu=False).cells[0].double()
    x, h, c, m = torch.randn(4, 2, d, 4, 4, dtype=torch.float64)

    def part(module, z):
        return F.group_norm(F.conv2d(z, module[0].weight), 1, module[1].weight, module[1].bias)

    wx, wh, wm = part(cell.of_input, x), part(cell.of_hidden, h), part(cell.of_memory, m)
    at = lambda w, k: w[:, k * d : (k + 1) * d]  # noqa: E731
    g, i, f = (
        (at(wx, 2) + at(wh, 2)).tanh(),
        (at(wx, 0) + at(wh, 0)).sigmoid(),
        at(wx, 1) + at(wh, 1),
    )
    c_new = (f + 1).sigmoid() * c + i * g
    g2, i2, f2 = (
        (at(wx, 5) + at(wm, 2)).tanh(),
        (at(wx, 3) + at(wm, 0)).sigmoid(),
        at(wx, 4) + at(wm, 1),
    )
    m_new = (f2 + 1).sigmoid() * m + i2 * g2
    both = torch.cat([c_new, m_new], 1)
    o = (at(wx, 6) + at(wh, 3) + part(cell.of_both, both)).sigmoid()
    state = cell(x, h, c, m)
    torch.testing.assert_close(state.cell, c_new)
    torch.testing.assert_close(state.memory, m_new)
    torch.testing.assert_close(state.hidden, o * F.conv2d(both, cell.last.weight).tanh())
    torch.testing.assert_close(state.cell_change, i * g)
    torch.testing.assert_close(state.memory_change, i2 * g2)


def test_the_loss_that_pulls_the_memories_apart():
    torch.manual_seed(0)
    net = video.PredRNNv2(8, 2, patch_size=4, return_decouple_loss=True)
    features = net(clips())
    assert 0 < features.decouple_loss < 1
    features.decouple_loss.backward()
    assert net.adapter.weight.grad.abs().sum() > 0
    assert ENCODERS["predrnn"]()(clips()).decouple_loss is None
    state = net.cells[0](*(torch.randn(1, n, 4, 4) for n in (48, 8, 8, 8)))
    same = state._replace(memory_change=state.cell_change)
    torch.testing.assert_close(net._likeness(same), torch.tensor(1.0))


def test_several_cameras():
    torch.manual_seed(0)
    net = video.RecurrentViT(16, 8, 64, 1, max_cams=3).eval()
    a, b = clips(), clips(seed=1)
    with torch.no_grad():
        one, two = net(a), net(torch.stack([a, b], 1))
        assert two.feature_map.shape == (2, 64, 6, 2, 4)
        torch.testing.assert_close(two.feature_map[..., :2], one.feature_map)
        assert not torch.allclose(two.tokens, one.tokens)
    with pytest.raises(ValueError, match="V up to `max_cams`"):
        net(torch.stack([a, b, a, b], 1))


@pytest.mark.parametrize(
    "family", ["cosmos", "magvit2", "predrnn_v2", "recurrent_vit", "videomamba"]
)
def test_presets_grow(family):
    sizes = ["tiny", "small", "base", "large", "huge"]
    if family in ("cosmos", "magvit2", "videomamba"):
        sizes += ["giant", "gigantic"]
    with torch.device("meta"):
        nets = [getattr(video, f"{family}_{size}")() for size in sizes]
    counts = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert counts == sorted(counts)
    assert getattr(video, f"{family}_tiny")(global_pool="").global_pool == ""


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (ENCODERS["cosmos"], torch.zeros(2, 1, 4, 8, 8), r"CosmosEncoder needs videos \(B, 3, T"),
        (ENCODERS["predrnn"], torch.zeros(2, 3, 17, 16, 16), "17 frames, more than `num_frames`"),
        (ENCODERS["predrnn"], torch.zeros(2, 3, 4, 15, 16), "do not divide into patches of 4"),
        (ENCODERS["videomamba"], torch.zeros(2, 3, 4, 16, 16), r"for videos of \(6, 16, 16\)"),
    ],
)
def test_a_wrong_video_is_named(make, x, message):
    with pytest.raises(ValueError, match=message):
        make()(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: video.CosmosEncoder(attn_stages=(4,)),
            "`attn_stages` must name stages from 0 to 3",
        ),
        (lambda: video.MAGVIT2Encoder(temporal_downsample_stages=(3,)), "from 0 to 2"),
        (lambda: video.PredRNNv2(kernel_size=2), "`kernel_size` must be odd"),
        (lambda: video.PredRNNv2(num_layers=1), "`use_ghu` needs at least 2 layers"),
        (lambda: video.VideoMamba(img_size=30), "does not divide into patches"),
        (lambda: video.RecurrentViT(global_pool="max"), '`global_pool` must be "avg" or ""'),
    ],
)
def test_a_wrong_setting_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_video_encoder_learns_which_way_things_move():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (32,), generator=generator)
    x = torch.zeros(32, 3, 4, 16, 16)
    for row, label in enumerate(labels.tolist()):
        for t in range(4):
            place = 3 * t if label else 9 - 3 * t
            x[row, :, t, :, place : place + 4] = 1
    net = nn.ModuleList([video.VideoMamba(16, 4, (1, 8, 8), 32, 1), nn.Linear(32, 2)])
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(30):
        loss = F.cross_entropy(net[1](net[0](x).pooled), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
