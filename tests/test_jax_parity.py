"""The JAX mirror beside the torch side, both alive: stored fixtures are current, runs and names agree."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parents[1] / "packages" / "spt-jax" / "tests" / "fixtures"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make", FIXTURES / "make_torch_fixtures.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


SUBJECTS = ("losses", "optim", "norm", "networks", "teacher", "evaluation", "augment")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_stored_results_are_what_torch_computes_now(made, subject):
    """What the JAX tests compare with, computed anew."""
    stored = np.load(FIXTURES / f"{subject}.npz")
    found = getattr(made, subject)()
    assert sorted(found) == sorted(stored.files)
    share = 1e-2 if subject == "networks" else 1e-3  # BatchNorm over four rows magnifies rounding
    for name, value in found.items():
        largest = np.abs(stored[name]).max()
        np.testing.assert_allclose(
            value, stored[name], rtol=share, atol=share * largest + 1e-5, err_msg=name
        )


def test_all_subjects_are_compared(made):
    assert {subject.__name__ for subject in made.SUBJECTS} == set(SUBJECTS)


WIDTHS, STEPS = (12, 8), 20
SPEC = {
    "optimizer": {"type": "AdamW", "lr": 0.02, "weight_decay": 0.05},
    "scheduler": {"type": "LinearWarmupCosineAnnealing", "peak_step": 4},
}


def batches():
    rng = np.random.default_rng(0)
    return [[rng.normal(size=(8, 6)).astype(np.float32) for _ in range(2)] for _ in range(STEPS)]


def torch_curve():
    from spt_losses import ntxent_loss
    from spt_optim import create_optimizer, create_scheduler

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, WIDTHS[0]), torch.nn.ReLU(), torch.nn.Linear(*WIDTHS)
    )
    start = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = create_optimizer(net.parameters(), SPEC["optimizer"])
    schedule = create_scheduler(optimizer, SPEC["scheduler"], total_steps=STEPS)
    curve = []
    for a, b in batches():
        loss = ntxent_loss(net(torch.from_numpy(a)), net(torch.from_numpy(b)), temperature=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
    return start, curve, net


def test_a_run_follows_the_same_curve(tmp_path):
    """Same weights, views, loss, optimizer and schedule: 20 steps under the JAX Trainer, and by hand in torch."""
    import jax.numpy as jnp
    import spt_jax as spj
    from flax import nnx

    start, curve, net = torch_curve()

    def forward(self, batch, stage):
        a, b = (self.net(view["image"]) for view in batch["views"])
        return {"loss": spj.losses.ntxent_loss(a, b)}

    encoder = spj.backbone.MLP(6, WIDTHS, rngs=nnx.Rngs(0))
    spj.utils.copy_torch_params_(encoder, start)
    module = spj.Module(forward=forward, net=encoder, optim=SPEC)
    found = []

    class Rows:
        def log_hyperparams(self, params): ...
        def save(self): ...
        def finalize(self, status): ...
        def log_metrics(self, metrics, step):
            found.append(metrics.get("fit/loss_step"))

    loader = [{"views": [{"image": a}, {"image": b}]} for a, b in batches()]
    trainer = spj.Trainer(logger=Rows(), log_every_n_steps=1, progress=False)
    trainer.fit(module, loader)
    steps = [value for value in found if value is not None]
    np.testing.assert_allclose(steps, curve, rtol=1e-3)
    weight = jnp.asarray(net[2].weight.detach().numpy()).T
    np.testing.assert_allclose(encoder.layers.layers[2].kernel[...], weight, rtol=5e-3, atol=5e-4)
