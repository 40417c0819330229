"""One class per method: the names of ``spt_methods.methods``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_methods.methods import *

__getattr__, __dir__ = mirror(__name__, "spt_methods.methods")
