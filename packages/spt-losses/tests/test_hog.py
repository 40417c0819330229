"""Histograms of oriented gradients against the official layer and skimage's convention by hand."""

import math

import pytest
import torch
from spt_losses import hog


@pytest.mark.parametrize(
    ("image", "name", "settings"),
    [
        ("image", "hog_pool8", {}),
        ("image", "hog_pool4", {"cell": 4}),
        ("image", "hog_bins18_pool8", {"bins": 18}),
        ("image_square", "hog_square_pool8_gauss16", {"window": 16}),
        ("image_edges", "hog_edges_pool8", {}),
    ],
)
def test_agrees_with_the_official_code(golden, image, name, settings):
    g = golden("maskfeat_hog_random")
    value = hog(g[image].float() / 256, **settings)
    torch.testing.assert_close(value, g[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle", [0.1, 0.8, 1.4, 2.2, 3.0])
def test_a_ramp_has_one_direction(angle):
    """Brightness that rises along (sin, cos) of an angle from the vertical fills that bin alone."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = x * math.sin(angle) + y * math.cos(angle)
    inner = hog(ramp.expand(1, 1, 16, 16), bins=9, cell=4)[0, 0, :, 1:3, 1:3]
    expected = torch.zeros(9, 2, 2)
    expected[int(angle / math.pi * 9)] = 1
    torch.testing.assert_close(inner, expected)


def test_scale_and_offset_do_not_matter_and_flat_cells_are_zero():
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(hog(image), hog(5 * image - 2))
    assert not hog(torch.ones(1, 3, 16, 16)).any()
    torch.testing.assert_close(hog(image).norm(dim=2), torch.ones(1, 3, 2, 2, dtype=torch.float64))


def test_half_precision_is_computed_in_float32():
    image = torch.rand(1, 3, 16, 16).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = hog(image)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, hog(image.float()))


def test_it_compiles_without_a_graph_break():
    torch.compiler.reset()
    image = torch.rand(1, 3, 16, 16)
    compiled = torch.compile(hog, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), hog(image))


def test_wrong_arguments_are_named():
    image = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"`cell` 5 must divide the sides \(16, 16\)"):
        hog(image, cell=5)
    with pytest.raises(ValueError, match=r"`window` 12 must divide the sides \(16, 16\)"):
        hog(image, window=12)
    with pytest.raises(ValueError, match="`bins` must be at least 1, got 0"):
        hog(image, bins=0)
    with pytest.raises(ValueError, match=r"`images` must have shape \(N, C, H, W\)"):
        hog(image[0])
    with pytest.raises(TypeError, match="`images` must be of a floating-point dtype"):
        hog(image.to(torch.uint8))
