"""The papers' optimisation, number by number, and what a run makes of it."""

import pytest
import torch
from spt_methods import methods
from spt_methods.catalogue import CATALOGUE
from spt_optim import create_scheduler
from torch import nn

# optimizer, rate, for a batch of, decay, its end, global batch, epochs, epochs of warm-up
PAPERS = {
    "BarlowTwins": ("LARS", 0.2, 256, 1e-6, None, 2048, 1000, 10),
    "BEiT": ("AdamW", 1.5e-3, 2048, 0.05, None, 2048, 800, 10),
    "BYOL": ("LARS", 0.2, 256, 1.5e-6, None, 4096, 1000, 10),
    "CMAE": ("AdamW", 1.5e-4, 256, 0.05, None, 4096, 800, 40),
    "CrossMAE": ("AdamW", 1.5e-4, 256, 0.05, None, 4096, 800, 40),
    "Data2Vec": ("AdamW", 2e-3, 2048, 0.05, None, 2048, 800, 10),
    "DINO": ("AdamW", 5e-4, 256, 0.04, 0.4, 1024, 100, 10),
    "DINOv2": ("AdamW", 4e-3, 1024, 0.04, 0.4, 2048, 100, 10),
    "iBOT": ("AdamW", 5e-4, 256, 0.04, 0.4, 1024, 800, 10),
    "IJEPA": ("AdamW", 1e-3, 2048, 0.04, 0.4, 2048, 300, 15),
    "LeJEPA": ("AdamW", 5e-4, 256, 0.05, None, 256, 100, 10),
    "MAE": ("AdamW", 1.5e-4, 256, 0.05, None, 4096, 800, 40),
    "MoCov2": ("SGD", 0.03, 256, 1e-4, None, 256, 800, 0),
    "MoCov3": ("AdamW", 1.5e-4, 256, 0.1, None, 4096, 300, 40),
    "MSN": ("AdamW", 1e-3, 1024, 0.04, 0.4, 1024, 800, 15),
    "NNCLR": ("LARS", 0.3, 256, 1e-6, None, 4096, 1000, 10),
    "PIRL": ("SGD", 0.03, 256, 1e-4, None, 1024, 800, 0),
    "SimCLR": ("LARS", 0.3, 256, 1e-6, None, 4096, 1000, 10),
    "SimMIM": ("AdamW", 8e-4, 2048, 0.05, None, 2048, 800, 10),
    "SimSiam": ("SGD", 0.05, 256, 1e-4, None, 512, 100, 0),
    "SwAV": ("LARS", 4.8, 4096, 1e-6, None, 4096, 800, 10),
    "TiCO": ("LARS", 0.2, 256, 1.5e-6, None, 4096, 1000, 10),
    "VICReg": ("LARS", 0.2, 256, 1e-6, None, 2048, 1000, 10),
    "VICRegL": ("LARS", 0.2, 256, 1e-6, None, 2048, 300, 10),
    "VJEPA": ("AdamW", 6.25e-4, 3072, 0.04, 0.4, 3072, 300, 40),
    "WMSE": ("Adam", 3e-3, 512, 1e-6, None, 512, 1000, 5),
}
FIRST_RATES = {"IJEPA": 1e-4, "MSN": 2e-4, "VJEPA": 2e-4, "SALT": 2e-4}
LAST_RATES = {
    "DINO": 1e-6, "iBOT": 1e-6, "DINOv2": 1e-6, "MSN": 1e-6, "IJEPA": 1e-6, "VJEPA": 1e-6, "SwAV": 4.8e-3,
    "LeJEPA": 5e-7, "PIRL": 1.2e-4,
}  # fmt: skip
CLIPS = {"DINO": 3.0, "iBOT": 3.0, "DINOv2": 3.0, "BEiT": 3.0, "Data2Vec": 3.0, "VJEPA": 10.0}


def rates(name, batch, steps=100):
    """The rate at each step of a run."""
    optim = getattr(methods, name).paper.optim(batch)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=optim["optimizer"]["lr"])
    schedule = create_scheduler(optimizer, optim["scheduler"], total_steps=steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_the_recipe_is_the_papers(name):
    optimizer, rate, per, decay, decay_end, batch, epochs, warmup = PAPERS[name]
    paper = getattr(methods, name).paper
    assert paper.optimizer == optimizer
    assert paper.rate(per) == pytest.approx(rate)
    assert (paper.weight_decay, paper.weight_decay_end) == (decay, decay_end)
    assert (paper.batch, paper.epochs, paper.warmup_epochs) == (batch, epochs, warmup)


@pytest.mark.parametrize("name", sorted({*FIRST_RATES, *LAST_RATES}))
def test_the_first_and_the_last_rate(name):
    paper = getattr(methods, name).paper
    found = rates(name, paper.batch)
    if name in FIRST_RATES:
        assert found[0] == pytest.approx(FIRST_RATES[name])
    if name in LAST_RATES:
        assert found[-1] == pytest.approx(LAST_RATES[name])
    assert max(found) == pytest.approx(paper.rate(paper.batch))


def test_a_smaller_batch_starts_lower_too():
    assert rates("IJEPA", 256)[0] == pytest.approx(1e-4 / 8)
    assert rates("MSN", 256)[0] == pytest.approx(2e-4)  # its rate does not depend on the batch


def test_clipping_layer_decay_and_momenta():
    for name, clip in CLIPS.items():
        assert getattr(methods, name).paper.options["gradient_clip_val"] == clip
    assert methods.DINOv2.paper.options["layer_decay"] == 0.9
    assert methods.DINOv2.paper.options["patch_embed_factor"] == 0.2
    for name in ("MAE", "CrossMAE", "CMAE"):
        assert getattr(methods, name).paper.settings["betas"] == (0.9, 0.95)
    assert methods.DINOv2.paper.rate(4096) == pytest.approx(8e-3)  # by the root


def test_every_method_has_a_recipe():
    for row in CATALOGUE:
        paper = getattr(methods, row.method).paper
        assert paper.lr > 0
        assert paper.epochs > paper.warmup_epochs
