"""The package as others import it."""

import spt_optim


def test_a_star_import_brings_optimizers_and_schedules():
    names: dict[str, object] = {}
    exec("from spt_optim import *", names)
    assert names["LARS"] is spt_optim.LARS
    assert names["LinearWarmupCosineAnnealingLR"] is spt_optim.LinearWarmupCosineAnnealingLR
