"""Runs on disk for the tests of readers."""

import contextlib
import json
import os
import time

import pytest
from spt_registry import index


@pytest.fixture
def put(tmp_path):
    """Write a run's files directly, as any writer may have left them."""

    def write(run_id, *, folder=None, text=None, beat=None, created=1_700_000_000.0, **fields):
        stamp = time.strftime("%Y%m%d/%H%M%S", time.gmtime(created))
        path = tmp_path / "runs" / (folder or f"{stamp}/{run_id}")
        path.mkdir(parents=True, exist_ok=True)
        sidecar = {"schema_version": 1, "run_id": run_id, "status": "completed"}
        sidecar |= {"created_at": created, "updated_at": created, **fields}
        fresh = path / ".new"
        fresh.write_text(json.dumps(sidecar) if text is None else text)
        os.replace(fresh, path / "sidecar.json")
        if beat is not None:
            (path / "heartbeat").touch()
            os.utime(path / "heartbeat", (time.time() + beat,) * 2)
        return path

    return write


@pytest.fixture
def settled(monkeypatch):
    """Folders count as settled at once, so that a test need not wait two seconds."""
    monkeypatch.setattr(index.walk, "RACY_NS", -1)


@pytest.fixture
def told():
    """What is said in the log."""
    from loguru import logger

    messages = []
    sink = logger.add(lambda message: messages.append(str(message)), format="{message}")
    yield messages
    logger.remove(sink)


@pytest.fixture
def as_nobody(tmp_path):
    """A block without any rights; root gives up its own and takes them back."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder) != "/":
            folder.chmod(folder.stat().st_mode | 0o055)

    @contextlib.contextmanager
    def block():
        if os.getuid() != 0:
            yield
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setresgid(65534, 65534, 0)
        os.setresuid(65534, 65534, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(groups)

    return block
