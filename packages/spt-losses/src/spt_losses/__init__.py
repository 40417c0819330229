"""Self-supervised learning objectives for PyTorch.

Values and gradients are those of the papers' formulas, in one process and on any number of ranks.
"""

from spt_losses.ntxent import NTXEntLoss as NTXEntLoss
from spt_losses.ntxent import ntxent_loss as ntxent_loss
