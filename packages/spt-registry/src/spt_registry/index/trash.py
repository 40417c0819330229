"""Put a run aside."""

from __future__ import annotations

import os
import time
from pathlib import Path

from spt_registry.index.query import Registry
from spt_registry.index.record import RunRecord
from spt_registry.index.store import connect, transaction, writing


def to_trash(registry: Registry, record: RunRecord) -> Path | None:
    """Move a run's directory below ``{cache_dir}/trash`` and out of the index.

    Args:
        registry: Where the run is.
        record: The run; where it is comes from the walk, not from what its sidecar says.

    Returns:
        Where it is now; ``None`` if its directory was gone already.

    Raises:
        OSError: If it cannot be moved.
    """
    path = record.run_dir.relative_to(registry.cache_dir)
    target: Path | None = None
    if record.run_dir.is_dir():
        stamp = time.strftime("%Y%m%d-%H%M%S")
        target = registry.cache_dir / "trash" / f"{stamp}-{os.urandom(3).hex()}" / path
        target.parent.mkdir(parents=True)
        os.rename(record.run_dir, target)
    connection = connect(registry.db_path)
    try:
        with writing(registry.db_path), transaction(connection):
            for table in ("runs", "stamps"):
                connection.execute(f"DELETE FROM {table} WHERE path = ?", (str(path),))
    finally:
        connection.close()
    return target
