"""A read-only page of the runs, for a browser on the same machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spt_registry._lazy import lazy_names

if TYPE_CHECKING:
    from spt_registry.web.server import Viewer as Viewer
    from spt_registry.web.server import serve as serve

__getattr__, __dir__ = lazy_names(__name__, {"Viewer": "server", "serve": "server"})
