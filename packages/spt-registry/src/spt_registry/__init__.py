"""A run registry that needs no server: plain files per run, one derived index, a fast CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spt_registry._lazy import lazy_names

if TYPE_CHECKING:
    from spt_registry.index.query import Registry as Registry
    from spt_registry.index.query import open_registry as open_registry
    from spt_registry.index.record import RunRecord as RunRecord
    from spt_registry.lightning import RegistryLogger as RegistryLogger
    from spt_registry.writer import RunWriter as RunWriter

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Registry": "index.query",
        "RegistryLogger": "lightning",
        "RunRecord": "index.record",
        "RunWriter": "writer",
        "open_registry": "index.query",
    },
)
