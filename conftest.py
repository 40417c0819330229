"""How the suite is shared among workers, and the cores among them."""

from __future__ import annotations

import gc
import os

import pytest

# Before torch is imported: as many threads in all as there are cores. Two workers of two threads on
# two cores take up to thirty times as long, because idle threads of the one spin while the other
# computes. Only in a worker: it would inherit what the process that starts it had set.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // workers)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One worker runs a file, so that what its fixtures start is started once."""
    if not config.pluginmanager.hasplugin("xdist"):  # a package alone has its own test tools only
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


def pytest_collection_finish() -> None:
    """Trainers and modules refer to each other in circles; let their collection not wait.

    Python postpones it until a quarter of all objects is new, and what was imported is millions of
    them, which are set aside here.
    """
    gc.collect()
    gc.freeze()
