"""Joined passes against one transform after the other, and how often they are compiled."""

import pytest
import torch
from spt_augment import (
    GPUColorJitter,
    GPUCompose,
    GPUGaussianBlur,
    GPUNormalize,
    GPURandomAffine,
    GPURandomGrayscale,
    GPURandomHorizontalFlip,
    GPURandomResizedCrop,
    GPURandomRotation,
    GPURandomSolarize,
    StackedMultiView,
    recipes,
)
from spt_augment._parameters import Parameters, _bytes, _unpack, place
from spt_augment._passes import (
    GeometricPass,
    PointwisePass,
    SinglePass,
    colour_mean,
    colour_pass,
    plan,
)
from spt_augment._random import drawing
from spt_augment._resize import _directly, crop_lines, crop_matmul, crop_resize
from torch.utils._python_dispatch import TorchDispatchMode

pytestmark = pytest.mark.slow

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def images(n=9, c=3, h=26, w=31, dtype=torch.float32, seed=0):
    x = torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed))
    return (x * 255).to(torch.uint8) if dtype == torch.uint8 else x.to(dtype)


def simclr(size=20, **kwargs):
    return GPUCompose(
        [
            GPURandomResizedCrop(size),
            GPURandomHorizontalFlip(),
            GPUColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
            GPURandomGrayscale(0.2),
            GPUGaussianBlur(9),
            GPURandomSolarize(p=0.3),
            GPUNormalize(MEAN, STD),
        ],
        **kwargs,
    )


def run(chain, x, key=0):
    with drawing("test", key):
        return chain({"image": x})


def near_the_threshold(chain, x, key):
    """Where float rounding may fall on either side of the solarize threshold."""
    before = GPUCompose(list(chain.transforms)[:-2], fuse=False)
    return (run(before, x, key)["image"] - 0.5).abs() < 1e-5


CHAINS = {
    "simclr": lambda **k: simclr(**k),
    "flips around a crop": lambda **k: GPUCompose(
        [GPURandomHorizontalFlip(), GPURandomResizedCrop((9, 14)), GPURandomHorizontalFlip()], **k
    ),
    "flips alone": lambda **k: GPUCompose(
        [GPURandomHorizontalFlip(), GPURandomHorizontalFlip()], **k
    ),
    "two crops": lambda **k: GPUCompose(
        [GPURandomResizedCrop(18), GPURandomResizedCrop(12, interpolation="bicubic")], **k
    ),
    "colours first": lambda **k: GPUCompose(
        [GPUColorJitter(0.4, 0, 0, 0.1, p=0.5), GPURandomResizedCrop(12)], **k
    ),
    "blur last": lambda **k: GPUCompose(
        [
            GPURandomResizedCrop(20),
            GPUColorJitter(0.4, 0.4, 0.2, 0.1, p=0.5),
            GPUGaussianBlur(9),
            GPUNormalize(MEAN, STD),
        ],
        **k,
    ),
    "blur first": lambda **k: GPUCompose([GPUGaussianBlur(5), GPUNormalize(MEAN, STD)], **k),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_joined_passes_are_one_after_the_other(name, dtype):
    x = images(dtype=dtype)
    before = x.clone()
    for key in range(12):
        fused = run(CHAINS[name](), x, key)
        single = run(CHAINS[name](fuse=False), x, key)
        assert set(fused) == set(single)
        wrong = (fused["image"] - single["image"]).abs() > 1e-5
        if name == "simclr":
            wrong &= ~near_the_threshold(CHAINS[name](), x, key)
        assert not wrong.any()
    assert torch.equal(x, before)


def test_pieces_of_a_batch_are_the_batch(monkeypatch):
    x = images(dtype=torch.uint8)
    whole = run(simclr(), x)["image"]
    monkeypatch.setattr("spt_augment.compose.EAGER_PIXELS", 20 * 20 * 2)
    torch.testing.assert_close(run(simclr(), x)["image"], whole, atol=1e-6, rtol=0)


def test_affine_maps_join_in_one_grid():
    """Bilinear interpolation is exact on a plane, so twice and once must agree inside."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    planes = torch.stack([x / 50, y / 40, (x + y) / 90])[None].expand(6, -1, -1, -1)
    ops = [
        GPURandomRotation(10, p=0.5),
        GPURandomAffine(8, (0.05, 0.05), (0.95, 1.05), 5, p=0.7),
        GPURandomRotation(6),
    ]
    for key in range(6):
        once = run(GPUCompose(ops), planes, key)["image"]
        thrice = run(GPUCompose(ops, fuse=False), planes, key)["image"]
        inside = (..., slice(13, 27), slice(15, 35))
        torch.testing.assert_close(once[inside], thrice[inside], atol=1e-5, rtol=0)
        assert not torch.equal(once, planes)


def test_views_are_cut_from_the_one_batch():
    x = images(dtype=torch.uint8)
    stacked = StackedMultiView(simclr(), n_views=3)
    views = run(stacked, x)["views"]
    tiled = run(simclr(), x.repeat(3, 1, 1, 1))
    torch.testing.assert_close(torch.cat([view["image"] for view in views]), tiled["image"])
    boxes = torch.cat([view["GPURandomResizedCrop"]["box"] for view in views])
    assert torch.equal(boxes, tiled["GPURandomResizedCrop"]["box"])


class Tensors(TorchDispatchMode):
    """Notes the operations of torch and the shapes of what they make."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.made.append((str(func), out.untyped_storage().nbytes() // out.element_size(), out))
        return out


def test_views_are_cut_without_copies_of_the_batch():
    x = images(8, h=60, w=60, dtype=torch.uint8)
    with Tensors() as tensors:
        run(StackedMultiView(GPUCompose([GPURandomResizedCrop(6)]), n_views=4), x)
    assert max(size for _, size, _ in tensors.made) <= x.numel()


def test_only_the_images_that_drew_it_are_blurred():
    blur = GPUCompose([GPUGaussianBlur(5, p=0.3)])
    with Tensors() as tensors:
        out = run(blur, images(64))
    drew = int(out["GPUGaussianBlur"]["batch_prob"].sum())
    assert 5 < drew < 40
    padded = [len(out) for name, _, out in tensors.made if "pad2d" in name]
    assert padded == [drew] * 2  # across, and down


def test_the_record_says_what_was_done():
    chain = GPUCompose([GPURandomHorizontalFlip(), GPURandomHorizontalFlip(), lambda b: b])
    x = images()
    out = run(chain, x)
    first, second = (
        out[name]["batch_prob"] for name in ("GPURandomHorizontalFlip", "GPURandomHorizontalFlip_0")
    )
    turned = (out["image"] != x).flatten(1).any(1)
    assert torch.equal(turned, first ^ second)
    thrice = run(GPUCompose([GPURandomHorizontalFlip()] * 3), x)
    assert "GPURandomHorizontalFlip_1" in thrice


def test_lists_and_dicts_of_images_are_mapped():
    x, y = images(4), images(4, h=30, seed=1)
    as_list = run(simclr(), [x, y])
    assert [tuple(i.shape) for i in as_list["image"]] == [(4, 3, 20, 20)] * 2
    assert len(as_list["GPUColorJitter"]) == 2
    as_dict = run(GPURandomHorizontalFlip(1.0), {"a": x, "b": y})
    assert torch.equal(as_dict["image"]["b"], y.flip(-1))


def test_other_keys_and_callables_keep_their_place():
    chain = GPUCompose(
        [
            GPURandomHorizontalFlip(1.0, target="mirror"),
            lambda batch: {**batch, "seen": batch["mirror"].shape},
            GPUNormalize(MEAN, STD, source="mirror", target="mirror"),
        ]
    )
    x = images()
    out = run(chain, x)
    assert torch.equal(out["image"], x)
    assert out["seen"] == x.shape
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(out["mirror"], (x.flip(-1) - mean) / std)
    with pytest.raises(KeyError, match="GPUNormalize needs the key 'other'; the batch holds"):
        GPUCompose([GPUNormalize(MEAN, STD, source="other")])({"image": x})


def test_a_compiled_recipe_compiles_once():
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    globals_, locals_ = simclr(20), simclr(12)
    for chain in (globals_, locals_):
        chain.compile()
    orders = set()
    for key in range(8):
        out = run(globals_, images(6), key)
        orders.add(tuple(out["GPUColorJitter"]["order"][0].tolist()))
        seen = run(simclr(20), images(6), key)["image"]
        far = ~near_the_threshold(globals_, images(6), key)
        assert ((out["image"] - seen).abs() < 1e-5)[far].all()
    graphs = counters["stats"]["unique_graphs"]
    # jitter and grey with hue before and after contrast; of the blur the padding, across and down;
    # solarize and normalise
    assert len(orders) > 4
    assert graphs == 6
    for n, chain in [(5, globals_), (1, globals_), (20, globals_), (6, locals_), (1, locals_)]:
        for key in range(4):
            assert len(run(chain, images(n), key)["image"]) == n
    run(locals_, images(12, h=12, w=40), 3)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["recompile_limit"]


def test_an_empty_batch_stays_empty():
    assert run(simclr(), images(0))["image"].shape == (0, 3, 20, 20)
    views = run(StackedMultiView(simclr()), images(0, dtype=torch.uint8))["views"]
    assert [view["image"].shape for view in views] == [(0, 3, 20, 20)] * 2


class Noted:
    """In the place of a compiler: which functions it was given."""

    def __init__(self):
        self.names = []

    def __call__(self, function, tensors, fixed):
        self.names.append(function.__name__)
        return function(*tensors, *fixed)


def test_what_an_accelerator_compiles():
    """A device without numbers takes every step of a real one, and cannot be waited for."""
    noted = Noted()
    recipe = recipes.simclr(size=32)
    recipe.chain.compiles_on = {"meta"}
    recipe.chain._compiler = noted
    out = run(recipe, images(64, h=40, w=50, dtype=torch.uint8).to("meta"))
    assert [view["image"].shape for view in out["views"]] == [(64, 3, 32, 32)] * 2
    assert all(view["image"].dtype == torch.float32 for view in out["views"])
    assert noted.names == [
        *["line_taps"] * 2,
        *["resample"] * 2,
        *["colour_mean", "colour_pass"],
        *["padded_rows", "sum_of_taps", "put_filtered"],
    ]


def test_a_normalisation_joins_the_colours_before_a_blur():
    transforms = list(CHAINS["blur last"]().transforms)
    passes = plan(transforms)
    assert [type(one) for one in passes] == [GeometricPass, PointwisePass, SinglePass]
    assert [one.places for one in passes] == [[0], [1, 3], [2]]


def test_the_fused_crop_is_compiled_once_for_every_size():
    """What an accelerator compiles, traced without breaks."""
    graphs, compiled = [], {}

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    def call(function, tensors, fixed):
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, [0, *range(2, tensor.ndim)])
        if (function, fixed) not in compiled:
            compiled[function, fixed] = torch.compile(
                lambda *given: function(*given, *fixed), backend=count, fullgraph=True
            )
        return compiled[function, fixed](*tensors)

    size = (30, 36)
    for n, views, h, w in [(4, 2, 40, 50), (3, 1, 44, 60), (2, 5, 60, 40)]:
        x = images(n, h=h, w=w)
        flip = torch.arange(n * views) % 2 == 0
        box = torch.tensor([[2, 3, 33, 35]]).repeat(n * views, 1)
        expected = crop_resize(x, box, size, flip=flip)
        result = crop_lines(x, box, flip, size, "bilinear", call)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert len(graphs) == 4  # the taps of the width and of the height, and both resizes


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(12, 9), (50, 31)])
def test_the_crops_of_an_accelerator_agree(mode, size):
    """Joined or not, a crop has the same levels, but for sums that fall half-way between two."""
    x = images(6, h=40, w=37, dtype=torch.uint8)
    drawn = GPURandomResizedCrop(size).draw(6, 40, 37, torch.Generator().manual_seed(0))
    flip = torch.arange(6) % 2 == 0
    given = (drawn["box"], flip, size, mode)
    apart = crop_matmul(x, *given).int() - crop_lines(x, *given, _directly).int()
    assert apart.abs().max() <= 1
    assert (apart != 0).float().mean() < 5e-3
    as_floats = crop_lines(x / 255, *given, _directly)
    torch.testing.assert_close(crop_matmul(x / 255, *given), as_floats, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hue_first", [True, False])
def test_the_mean_of_a_contrast_may_be_known_before(hue_first):
    """As on an accelerator, where it is a pass of its own."""
    jitter = GPUColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8)
    for key in range(20):
        drawn = jitter.draw(5, 8, 8, torch.Generator().manual_seed(key))
        order = drawn["order"][0].tolist()
        if (order.index(3) < order.index(1)) == hue_first:
            break
    program = jitter.program(Parameters(drawn, drawn))
    assert program.hue_first == hue_first
    flat = torch.rand(5, 3, 64, generator=torch.Generator().manual_seed(1))
    numbers = torch.cat([torch.zeros(5, 1), torch.ones(5, 1), drawn["_numbers"]], dim=1)
    before = ("grey", None, 1)
    at_once = colour_pass(flat, numbers, (before, ("jitter", program, 15)))
    mean = colour_mean(flat, numbers, (before, ("jitter", program, 15)))
    assert mean.shape == (5, 1)
    numbers = torch.cat([numbers, mean], dim=1)
    twice = colour_pass(flat, numbers, (before, ("jitter with mean", program, 16)))
    assert torch.equal(twice, at_once)


def test_draws_cross_to_a_device_as_bytes():
    values = [
        torch.tensor([True, False, True]),
        torch.arange(12).view(3, 4)[:, 1:],
        torch.tensor([2**53 + 1, -1, 0]),
        torch.arange(4).expand(3, 4),
        torch.rand(3, 2, 2),
        torch.rand(0, 5),
    ]
    pieces = [_bytes(value) for value in values]
    packed = torch.cat(pieces)
    for value, part in zip(values, packed.split([len(piece) for piece in pieces]), strict=True):
        back = _unpack(part, value)
        assert back.dtype == value.dtype
        assert torch.equal(back, value)
    (given,) = place([{"batch_prob": values[0], "box": values[1]}], torch.device("meta"))
    assert given["box"].is_meta
    assert given["box"].dtype == torch.int64
    assert given["box"].shape == (3, 3)
    assert given.host["box"] is values[1]


def test_compile_takes_a_mode_only():
    with pytest.raises(TypeError, match="`compile` takes only `mode`, got"):
        simclr().compile(backend="eager")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_fused_colours_keep_the_dtype_of_the_images(dtype):
    numbers = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    out = colour_pass(torch.rand(2, 3, 5).to(dtype), numbers, (("grey", None, 1),))
    assert out.dtype == dtype
    as_bytes = torch.randint(0, 256, (2, 3, 5), dtype=torch.uint8)
    assert colour_pass(as_bytes, numbers, (("grey", None, 1),)).dtype == torch.float32
