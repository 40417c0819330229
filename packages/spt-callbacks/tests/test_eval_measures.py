"""Measures against their formulas in NumPy, spectra with known answers, and official code's values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spt_callbacks import (
    Alignment,
    AlphaReQ,
    FeatureStd,
    LiDAR,
    MeanCosine,
    RankMe,
    Uniformity,
    alignment,
    alpha_req,
    feature_std,
    lidar,
    mean_cosine,
    rankme,
    uniformity,
)
from spt_callbacks.evaluation._views import newest_views
from spt_callbacks.evaluation.alpha_req import covariance_spectrum, power_law_exponent
from spt_callbacks.evaluation.lidar import lidar_spectrum
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")

GOLDEN = Path(__file__).parent / "golden"
LIDAR = json.loads((GOLDEN / "lidar.json").read_text())["cases"]
ALPHA = json.loads((GOLDEN / "alpha_req.json").read_text())["cases"]


def rows(n=40, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", sorted(LIDAR))
def test_lidar_agrees_with_the_published_equations(case):
    views = torch.tensor(np.load(GOLDEN / "lidar.npz")[f"E_{case}"])
    n, q, d = views.shape
    order = torch.randperm(n * q, generator=torch.Generator().manual_seed(1))
    embeddings = views.reshape(n * q, d)[order]
    groups = (torch.arange(n).repeat_interleave(q) * 7 - 3)[order]
    for entry in LIDAR[case]["values"]:
        delta = entry["delta"]
        found = lidar(embeddings, groups, delta=delta, epsilon=0.0)
        assert found.item() == pytest.approx(entry["lidar_eps0"], rel=1e-8)
        found = lidar(embeddings, groups, delta=delta, epsilon=1e-7)
        assert found.item() == pytest.approx(entry["lidar_eps1e-7"], rel=1e-8)
        spectrum = lidar_spectrum(embeddings, groups, delta=delta)
        golden = np.load(GOLDEN / "lidar.npz")
        name = next(k for k in golden if k == f"eig_{case}_delta{delta:g}")
        assert np.abs(spectrum.numpy() - golden[name]).max() < 1e-8 * golden[name][0]


def test_lidar_of_images_with_unequal_numbers_of_views():
    """Equations 1-3 with the pooled within-covariance, by loops."""
    x, groups = rows(11, 4), torch.tensor([5, 5, 9, 9, 9, 2, 2, 2, 2, 9, 5])
    means = {g: x[groups == g].mean(0).numpy() for g in (2, 5, 9)}
    grand = np.mean(list(means.values()), axis=0)
    between = sum(np.outer(m - grand, m - grand) for m in means.values()) / 2
    within = sum(
        np.outer(row - means[int(g)], row - means[int(g)])
        for row, g in zip(x.numpy(), groups, strict=True)
    ) / (11 - 3) + 0.01 * np.eye(4)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    share = np.sort(values)[::-1][:2] / values.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert lidar(x, groups, delta=0.01, epsilon=0.0).item() == pytest.approx(expected, rel=1e-9)


def test_lidar_needs_views_of_images():
    with pytest.raises(
        ValueError, match="at least two images with two views each, got 3 rows of 3"
    ):
        lidar(rows(3), torch.arange(3))
    with pytest.raises(ValueError, match=r"`groups` \(N,\), got \(3, 6\) and \(2,\)"):
        lidar(rows(3), torch.arange(2))
    with pytest.raises(
        ValueError, match="`samples_per_class` of LiDAR 'lidar' must be >= 2, got 1"
    ):
        LiDAR(samples_per_class=1)


def test_the_newest_views_of_the_newest_images_are_taken():
    groups = torch.tensor([1, 2, 1, 3, 3, 2, 4, 3, 1])
    assert newest_views(groups, 9, 9).tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert newest_views(groups, 9, 2).tolist() == [1, 2, 4, 5, 7, 8]
    assert newest_views(groups, 2, 9).tolist() == [0, 2, 3, 4, 7, 8]
    assert newest_views(torch.arange(3), 9, 9).tolist() == []


@pytest.mark.parametrize("case", sorted(ALPHA))
def test_alpha_req_agrees_with_the_official_fit(case):
    golden = np.load(GOLDEN / "alpha_req.npz")
    if case == "features":
        spectrum = covariance_spectrum(torch.tensor(golden["features"]))
        np.testing.assert_allclose(spectrum, golden["features_eigenspectrum"], rtol=1e-5)
    else:
        spectrum = torch.tensor(golden[f"spectrum_{case}"])
    for fit in ALPHA[case]["fits"]:
        first, end = fit["trange"]
        found = power_law_exponent(spectrum, (first + 1, end))
        assert found.item() == pytest.approx(fit["alpha_weighted"], abs=1e-6)


def test_alpha_req_of_a_known_spectrum_and_of_a_range_beyond_it():
    basis = torch.linalg.qr(rows(60, 20))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0]
    power = torch.arange(1, 21, dtype=torch.float64) ** -0.6  # singular values: alpha is 1.2
    assert alpha_req(basis * power + 5).item() == pytest.approx(1.2, abs=1e-9)
    with pytest.raises(ValueError, match=r"two ranks of the 4 eigenvalues.*got \(2, 9\)"):
        power_law_exponent(torch.ones(4), (2, 9))


@pytest.mark.parametrize("normalised", [True, False])
def test_alignment_and_uniformity_agree_with_the_official_code(normalised):
    golden = np.load(GOLDEN / "align_uniform.npz")
    values = json.loads((GOLDEN / "align_uniform.json").read_text())
    x, y = (torch.tensor(golden[name]) for name in "xy")
    if normalised:
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    else:
        x, y = (v / values["unnormalised_divisor"] for v in (x, y))
    for entry in values["values"]:
        if entry["normalised"] != normalised:
            continue
        if entry["loss"] == "align":
            found = alignment(x, y, alpha=entry["alpha"])
            assert found.item() == pytest.approx(entry["float64"], rel=1e-12)
        else:
            for name, z in (("x", x), ("y", y)):
                found = uniformity(z, t=entry["t"]).item()
                assert found == pytest.approx(entry[f"float64_{name}"], rel=1e-11)


def test_closed_forms_of_alignment_and_uniformity():
    eye = torch.eye(6, dtype=torch.float64)
    assert uniformity(eye).item() == pytest.approx(-4.0)
    assert uniformity(torch.stack([eye[0], -eye[0]])).item() == pytest.approx(-8.0)
    assert uniformity(eye[:1].repeat(5, 1)).item() == pytest.approx(0.0)
    assert alignment(eye, -eye).item() == pytest.approx(4.0)
    assert alignment(eye, eye.roll(1, 0), alpha=1).item() == pytest.approx(2**0.5)
    with pytest.raises(ValueError, match="at least two rows"):
        uniformity(eye[:1])
    with pytest.raises(ValueError, match=r"one shape \(N, D\), got \(6, 6\) and \(5, 6\)"):
        alignment(eye, eye[:5])


def test_uniformity_in_chunks_is_the_mean_over_pairs():
    x = F.normalize(rows(2500, 3), dim=1)
    distance = torch.pdist(x).square()
    assert uniformity(x).item() == pytest.approx(distance.mul(-2).exp().mean().log().item())


def test_feature_std_and_mean_cosine_by_their_definitions():
    x = rows(30, 5) + 1
    unit = x.numpy() / np.linalg.norm(x, axis=1, keepdims=True)
    assert feature_std(x).item() == pytest.approx(unit.std(0).mean())
    assert feature_std(x, normalize=False).item() == pytest.approx(x.numpy().std(0).mean())
    cosines = (unit @ unit.T)[~np.eye(30, dtype=bool)]
    assert mean_cosine(x).item() == pytest.approx(cosines.mean())
    constant = torch.ones(9, 4)
    assert feature_std(constant).item() == pytest.approx(0, abs=1e-7)
    assert mean_cosine(constant).item() == pytest.approx(1)
    spread = F.normalize(rows(20000, 16), dim=1)
    assert feature_std(spread).item() == pytest.approx(16**-0.5, rel=0.01)
    assert mean_cosine(spread).item() == pytest.approx(0, abs=0.01)
    for measure in (feature_std, mean_cosine, uniformity):
        with pytest.raises(ValueError, match=r"must have shape \(N, D\), got \(3,\)"):
            measure(torch.ones(3))


def fit_on(plain, make_trainer, data, callbacks):
    """Train for an epoch on data whose ``z`` the callbacks read."""
    data = [{**sample, "x": torch.zeros(8), "label": 0} for sample in data]
    trainer = make_trainer(callbacks, max_epochs=1)
    trainer.fit(plain(), DataLoader(data, 8, shuffle=True), DataLoader(data, 8))
    return trainer.callback_metrics


def test_callbacks_report_what_the_functions_say(plain, make_trainer):
    x = rows(64, 10).float() * torch.arange(1, 11) ** -0.7 + 0.3
    data = [{"z": row, "sample_idx": i // 4} for i, row in enumerate(x)]
    common = {"target": "z", "queue_length": 500}
    found = fit_on(
        plain, make_trainer, data,
        [
            RankMe(**common, verbose=True, target_shape=10), LiDAR(**common, verbose=True),
            FeatureStd(**common), MeanCosine(**common), AlphaReQ(**common, ranks=(1, 9)),
            Uniformity(**common), Alignment(**common),
        ],
    )  # fmt: skip
    groups = torch.arange(64) // 4
    expected = {
        "rankme": rankme(x), "rankme/entropy": rankme(x).log(),
        "rankme/top_singular_value": torch.linalg.svdvals(x)[0],
        "lidar": lidar(x, groups), "lidar/images": torch.tensor(16.0),
        "feature_std": feature_std(x), "mean_cosine": mean_cosine(x),
        "alpha_req": alpha_req(x, ranks=(1, 9)), "uniformity": uniformity(F.normalize(x, dim=1)),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5), name
    unit = F.normalize(x.view(16, 4, 10), dim=2)
    assert 0 < found["alignment"] < 2 * torch.cdist(unit, unit).square().max()


class Products(TorchDispatchMode):
    """The types in which matrices are multiplied and decomposed."""

    NAMES = ("mm", "addmm", "addmm_", "bmm", "_linalg_svd", "_linalg_eigh")

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.NAMES:
            self.found.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [RankMe, LiDAR, AlphaReQ, FeatureStd, MeanCosine])
def test_spectra_are_computed_in_float64_whatever_the_matmul_precision(plain, make_trainer, kind):
    callback, mode = kind(target="z", queue_length=64), Products()
    measure = callback.measure

    def watched(trainer):
        with mode:
            return measure(trainer)

    callback.measure = watched
    data = [{"z": row, "sample_idx": i // 4} for i, row in enumerate(rows(64, 10).float())]
    fit_on(plain, make_trainer, data, [callback])
    assert mode.found <= {torch.float64}
    assert mode.found or kind in (FeatureStd, MeanCosine)  # which need no product of matrices


def test_lidar_sees_the_collapse_of_shuffled_views(plain, make_trainer):
    """Images differ in two directions only; rows come in any order."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(40, 10)
    centres[:, :2] = torch.randn(40, 2, generator=generator) * 5
    data = [
        {"z": centres[i % 40] + 0.05 * torch.randn(10, generator=generator), "sample_idx": i % 40}
        for i in range(240)
    ]  # fmt: skip
    found = fit_on(plain, make_trainer, data, [LiDAR(target="z", queue_length=240)])
    assert 1.5 < found["lidar"] < 2.2


def test_lidar_takes_numbers_given_once_per_image_for_concatenated_views(
    plain, loaders, make_trainer
):
    trainer = make_trainer([LiDAR(queue_length=96, verbose=True)], max_epochs=1)
    trainer.fit(plain(), *loaders)  # embeddings of two views, one sample_idx per image
    assert trainer.callback_metrics["lidar/images"] == 48

    wrong = LiDAR(queue_length=96, group=lambda outputs, batch: torch.arange(3))
    with pytest.raises(
        ValueError, match=r"one integer of .* per row.*got \(3,\) torch.int64 for 16"
    ):
        make_trainer([wrong], max_epochs=1).fit(plain(), loaders[0])


def test_a_measure_of_another_width_is_named(plain, loaders, make_trainer):
    with pytest.raises(ValueError, match=r"RankMe 'rankme' was told `target_shape=7`, but 'embed"):
        make_trainer([RankMe(target_shape=7)]).fit(plain(), *loaders)


def test_rankme_through_the_gram_matrix_keeps_its_digits():
    from spt_callbacks.evaluation._spectrum import entropy_of, moments, singular_values

    golden = np.load(GOLDEN / "rankme.npz")
    cases = json.loads((GOLDEN / "rankme.json").read_text())["cases"]
    for case, entry in cases.items():
        count, _, gram = moments(torch.tensor(golden[f"Z_{case}"]))
        found = entropy_of(singular_values(count, gram), 1e-7).exp().item()
        assert found == pytest.approx(entry["rankme_eps1e-7"], rel=1e-5), case
