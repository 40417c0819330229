"""Live evaluation and training callbacks: the names of ``spt_callbacks``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_callbacks import *

__getattr__, __dir__ = mirror(__name__, "spt_callbacks")
