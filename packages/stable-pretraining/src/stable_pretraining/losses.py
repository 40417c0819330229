"""Self-supervised objectives: the names of ``spt_losses``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_losses import *

__getattr__, __dir__ = mirror(__name__, "spt_losses")
