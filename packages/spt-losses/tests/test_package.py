"""The package as others import it."""

import spt_losses


def test_a_star_import_brings_the_losses():
    names: dict[str, object] = {}
    exec("from spt_losses import *", names)
    assert names["NTXEntLoss"] is spt_losses.NTXEntLoss
    assert names["ntxent_loss"] is spt_losses.ntxent_loss
