"""Forward functions of the methods, for ``Module(forward=...)``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_methods.forward import *

__getattr__, __dir__ = mirror(__name__, "spt_methods.forward")
