"""VCReg: its terms, and what makes it vanish."""

import pytest
import torch
from spt_losses import VCRegLoss, vcreg_loss, vicreg_loss


def test_it_is_vicreg_without_the_invariance():
    z_i, z_j = torch.randn(2, 9, 5, dtype=torch.float64)
    both = vcreg_loss(z_i) + vcreg_loss(z_j)
    torch.testing.assert_close(vicreg_loss(z_i, z_j, sim_coeff=0.0), both)


def test_shifting_the_batch_changes_nothing():
    z = torch.randn(9, 5, dtype=torch.float64)
    torch.testing.assert_close(vcreg_loss(z + 7), vcreg_loss(z))


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="VCReg needs at least 2 samples over all ranks, got 1"):
        VCRegLoss()(torch.randn(1, 4))
    with pytest.raises(ValueError, match="`std_coeff` must be >= 0, got nan"):
        VCRegLoss(std_coeff=float("nan"))
