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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that begins one last would keep the other waiting.

    A worker runs a whole file (``--dist loadfile``), so that what its fixtures start is started once.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Trainers and modules refer to each other in circles; let their collection not wait.

    Python postpones it until a quarter of all objects is new, and what was imported is millions of
    them, which are set aside here.
    """
    gc.collect()
    gc.freeze()
