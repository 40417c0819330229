"""VICRegL against the official code, and a global part that is VICReg."""

import pytest
import torch
from spt_losses import VICRegLLoss, vicreg_loss, vicregl_loss

TERMS = {
    "inv": {"std_coeff": 0.0, "cov_coeff": 0.0},
    "var": {"sim_coeff": 0.0, "cov_coeff": 0.0},
    "cov": {"sim_coeff": 0.0, "std_coeff": 0.0},
}


def views(golden, name, number):
    g = golden(name)
    groups = [[f"{kind}_{view}" for view in range(number)] for kind in ("embedding", "maps")]
    embeddings, maps = (g.inputs(*group) for group in groups)
    locations = [g[f"in_locations_{view}"] for view in range(number)]
    settings = {
        "alpha": g.param("alpha"),
        "num_matches": tuple(g.arrays["param_num_matches"].tolist()),
    }
    return g, embeddings, maps, locations, settings


@pytest.mark.parametrize(("name", "number"), [("vicregl_a", 2), ("vicregl_multicrop_a", 4)])
def test_agrees_with_the_official_code(golden, name, number):
    g, embeddings, maps, locations, settings = views(golden, name, number)
    loss = VICRegLLoss(**settings)(embeddings, maps, locations)
    loss.backward()
    g.check("out_loss", loss)
    for view in range(number):
        g.check(f"grad_embedding_{view}", embeddings[view].grad)
        g.check(f"grad_maps_{view}", maps[view].grad)


@pytest.mark.parametrize(("name", "number"), [("vicregl_a", 2), ("vicregl_multicrop_a", 4)])
@pytest.mark.parametrize("term", list(TERMS))
def test_each_term_agrees_with_the_official_code(golden, name, number, term):
    g, embeddings, maps, locations, settings = views(golden, name, number)
    settings |= TERMS[term]
    settings["alpha"] = 1.0
    g.check(f"out_global_{term}", vicregl_loss(embeddings, maps, locations, **settings))
    settings["alpha"] = 0.0
    g.check(f"out_local_{term}", vicregl_loss(embeddings, maps, locations, **settings))
    settings["l2_all_matches"] = False
    value = vicregl_loss(embeddings, maps, locations, **settings)
    g.check(f"out_other_rule_local_{term}", value)


def test_the_global_part_is_vicreg_with_half_the_covariance():
    z_i, z_j = torch.randn(2, 9, 5, dtype=torch.float64)
    maps = torch.randn(9, 4, 3, dtype=torch.float64)
    where = torch.rand(9, 2, 2, 2, dtype=torch.float64)
    value = vicregl_loss([z_i, z_j], [maps] * 2, [where] * 2, alpha=1.0, num_matches=(2, 2))
    torch.testing.assert_close(value, vicreg_loss(z_i, z_j, cov_coeff=0.5))


def test_positions_at_one_place_are_matched():
    """The same local features in another order cost no invariance."""
    order = torch.randperm(9)
    maps, where = torch.randn(5, 9, 3), torch.rand(5, 9, 2)
    z = torch.zeros(5, 3)
    only = {"alpha": 0.0, "std_coeff": 0.0, "cov_coeff": 0.0, "num_matches": (9, 4)}
    shuffled = vicregl_loss([z, z], [maps, maps[:, order]], [where, where[:, order]], **only)
    assert shuffled.item() == pytest.approx(0, abs=1e-10)
    moved = vicregl_loss([z, z], [maps, maps[:, order]], [where, where], **only)
    assert moved > 1


def test_wrong_arguments_are_named():
    z, maps, where = torch.randn(4, 3), torch.randn(4, 9, 5), torch.rand(4, 3, 3, 2)
    with pytest.raises(ValueError, match=r"the same views, at least 2, got 2, 2 and 1"):
        vicregl_loss([z, z], [maps, maps], [where])
    with pytest.raises(ValueError, match="got 20 for the 9 positions of view 0"):
        vicregl_loss([z, z], [maps, maps], [where, where])
    with pytest.raises(ValueError, match=r"got \(4, 3\) and \(4, 9, 4\) for view 1"):
        vicregl_loss([z, z], [maps, maps[..., :4]], [where, where])
    with pytest.raises(ValueError, match=r"`maps\[0\]` and `locations\[0\]` must have shapes"):
        vicregl_loss([z, z], [maps, maps], [where[:, :2], where])
    with pytest.raises(ValueError, match="VICRegL needs at least 2 samples over all ranks, got 1"):
        vicregl_loss([z[:1]] * 2, [maps[:1]] * 2, [where[:1]] * 2, num_matches=(2, 2))
    with pytest.raises(ValueError, match=r"`alpha` must lie in \[0, 1\], got 2"):
        VICRegLLoss(alpha=2.0)
