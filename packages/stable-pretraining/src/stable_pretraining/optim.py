"""Optimizers and schedules: the names of ``spt_optim``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_optim import *

__getattr__, __dir__ = mirror(__name__, "spt_optim")
