"""The run registry: the names of ``spt_registry``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_registry import *

__getattr__, __dir__ = mirror(__name__, "spt_registry")
