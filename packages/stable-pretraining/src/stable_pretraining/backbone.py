"""Backbones and heads: the names of ``spt_methods.backbones``."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror, offer

if TYPE_CHECKING:
    from spt_methods.backbones import *

__getattr__, __dir__ = mirror(__name__, "spt_methods.backbones")
offer(
    __name__,
    pos_embed="spt_methods.backbones.pos_embed",
    video="spt_methods.backbones.video",
)
