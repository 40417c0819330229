"""The JAX mirror: the names of ``spt_jax`` (extra ``jax``)."""

from typing import TYPE_CHECKING

from stable_pretraining._lazy import mirror

if TYPE_CHECKING:
    from spt_jax import *

__getattr__, __dir__ = mirror(__name__, "spt_jax", extra="jax")
