"""A run on disk: its identity, its directory, and files that are never half written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spt_registry._lazy import lazy_names

if TYPE_CHECKING:
    from spt_registry.run.directory import RunDir as RunDir
    from spt_registry.run.directory import open_run_dir as open_run_dir
    from spt_registry.run.files import atomic_file as atomic_file
    from spt_registry.run.files import atomic_write_bytes as atomic_write_bytes
    from spt_registry.run.files import atomic_write_json as atomic_write_json
    from spt_registry.run.files import atomic_write_text as atomic_write_text
    from spt_registry.run.identity import RunIdentity as RunIdentity
    from spt_registry.run.identity import is_global_zero as is_global_zero
    from spt_registry.run.identity import resolve_identity as resolve_identity
    from spt_registry.run.identity import slot_in_job as slot_in_job
    from spt_registry.run.preemption import PreemptionGuard as PreemptionGuard
    from spt_registry.run.preemption import requeue as requeue

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PreemptionGuard": "preemption",
        "RunDir": "directory",
        "RunIdentity": "identity",
        "atomic_file": "files",
        "atomic_write_bytes": "files",
        "atomic_write_json": "files",
        "atomic_write_text": "files",
        "is_global_zero": "identity",
        "open_run_dir": "directory",
        "requeue": "preemption",
        "resolve_identity": "identity",
        "slot_in_job": "identity",
    },
)
