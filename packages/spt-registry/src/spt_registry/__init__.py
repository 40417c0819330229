"""A run registry that needs no server: plain files per run, one derived index, a fast CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spt_registry.index.query import Registry as Registry
from spt_registry.index.query import RunRecord as RunRecord
from spt_registry.index.query import open_registry as open_registry
from spt_registry.writer import RunWriter as RunWriter

if TYPE_CHECKING:
    from spt_registry.lightning import RegistryLogger as RegistryLogger


def __getattr__(name: str) -> object:
    if name == "RegistryLogger":
        try:
            from spt_registry.lightning import RegistryLogger
        except ModuleNotFoundError as error:
            if error.name != "lightning":
                raise
            raise ModuleNotFoundError(
                'RegistryLogger needs Lightning: pip install "spt-registry[lightning]"',
                name="lightning",
            ) from error
        return RegistryLogger
    raise AttributeError(f"module 'spt_registry' has no attribute {name!r}")
