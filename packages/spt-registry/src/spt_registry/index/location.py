"""Where the index lives and which journal it may use."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = {
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "smbfs", "ceph", "afs", "panfs",
    "wekafs", "9p", "virtiofs", "orangefs", "pvfs2", "glusterfs", "fuse",
}  # fmt: skip


def index_path(cache_dir: Path, db_path: str | Path | None = None) -> Path:
    """The index of a cache directory.

    ``{cache_dir}/registry.db`` on a local disk that may be written; otherwise a file of this user
    on this machine, below ``$XDG_CACHE_HOME/spt-registry`` (``~/.cache``).

    Args:
        cache_dir: Root of the runs.
        db_path: Another file, which wins.
    """
    if db_path is not None:
        return Path(db_path).expanduser().absolute()
    shared = cache_dir / "registry.db"
    writable = os.access(shared if shared.exists() else cache_dir, os.W_OK)
    if writable and os.access(cache_dir, os.W_OK) and not is_network(cache_dir):
        return shared
    return private_index(cache_dir)


def private_index(cache_dir: Path) -> Path:
    """This user's own index of a cache directory, on this machine."""
    from hashlib import sha256

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = sha256(os.fsencode(cache_dir.resolve())).hexdigest()[:16]
    return home / "spt-registry" / name / "registry.db"


def is_network(path: Path, mounts: str | None = None) -> bool:
    r"""Whether a path lies on a file system that several hosts share.

    Args:
        path: Any path.
        mounts: The text of ``/proc/self/mountinfo``; read by default.

    Example:
        >>> mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /data rw - nfs4 host:/x rw"
        >>> is_network(Path("/data/runs"), mounts), is_network(Path("/home"), mounts)
        (True, False)
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:  # not Linux: SQLite's own locking is all there is to rely on
            return False
    real = os.path.realpath(path)
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, found, right = line.partition(" - ")
        if not found:
            continue
        point = left.split()[4].replace("\\040", " ")
        inside = point == "/" or real == point or real.startswith(point + "/")
        if inside and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind.split(".")[0] in NETWORK
