"""Live evaluation and training callbacks: the names of ``spt_callbacks``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror, offer

if TYPE_CHECKING:
    from spt_callbacks import *

__getattr__, __dir__ = mirror(__name__, "spt_callbacks")
offer(
    __name__,
    utils="spt_callbacks.utils",
    queue="spt_callbacks.online_queue",
    hp_metric="spt_callbacks.training.hp_metric",
    registry="spt_callbacks.system.module_registry",
)
