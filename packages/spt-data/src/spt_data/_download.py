"""Files from the web: whole or not at all."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from loguru import logger

TRIES = 3
CHUNK = 1 << 20


def download(
    url: str,
    dest_folder: str | Path,
    backend: Literal["filesystem"] = "filesystem",
    cache_dir: str | Path = "~/.stable_pretraining/",
    progress_bar: bool = True,
) -> Path:
    """Fetch a file; a copy in the cache is used again.

    Args:
        url: ``https://``, ``http://`` or ``file://``.
        dest_folder: Made if it is not there.
        backend: Where the cache is: in files.
        cache_dir: Its folder.
        progress_bar: Show how far it is, on a terminal.

    Returns:
        The file in ``dest_folder``.

    Raises:
        OSError: If the server answers with an error, or the file comes short three times; nothing
            is left behind.
        ValueError: If the url names no file, or the backend is another.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name  # an escaped slash is one, too
    if name in ("", ".."):
        raise ValueError(f"`url` must name a file, got {url!r}.")
    if backend != "filesystem":
        raise ValueError(f"`backend` must be 'filesystem', got {backend!r}.")
    key = blake2b(url.encode(), digest_size=8).hexdigest()
    cached = Path(cache_dir).expanduser() / "downloads" / key / name
    if not cached.exists():
        _fetch(url, cached, progress_bar and sys.stderr.isatty())
    folder = Path(dest_folder).expanduser()
    target = folder / name
    with _complete(target) as partial:
        shutil.copyfile(cached, partial)
    return target


def bulk_download(
    urls: Sequence[str],
    dest_folder: str | Path,
    backend: Literal["filesystem"] = "filesystem",
    cache_dir: str | Path = "~/.stable_pretraining/",
) -> list[Path]:
    """Fetch several files, eight at a time.

    Args:
        urls: One per file.
        dest_folder: Made if it is not there.
        backend: Where the cache is.
        cache_dir: Its folder.

    Returns:
        The files, in the order of the urls.

    Raises:
        OSError: If one cannot be fetched; the others that were begun are finished.
    """
    with ThreadPoolExecutor(min(8, max(1, len(urls)))) as pool:
        jobs = [
            pool.submit(download, url, dest_folder, backend, cache_dir, progress_bar=False)
            for url in urls
        ]
    return [job.result() for job in jobs]


class _complete:
    """A file that appears under its name when it is whole."""

    def __init__(self, target: Path) -> None:
        self.target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        self.partial = Path(name)

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            with self.partial.open("rb+") as file:
                os.fsync(file.fileno())
            self.partial.replace(self.target)
        else:
            self.partial.unlink(missing_ok=True)


def _fetch(url: str, target: Path, show: bool) -> None:
    """Try a few times, going on where a try broke off when the server allows it."""
    with _complete(target) as partial:
        for attempt in range(1, TRIES + 1):
            try:
                return _receive(url, partial, show)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 or attempt == TRIES:
                    raise OSError(f"{url} cannot be fetched: {error}.") from error
            except (OSError, EOFError, http.client.HTTPException) as error:
                if attempt == TRIES:
                    raise OSError(
                        f"{url} cannot be fetched after {TRIES} tries: {error}"
                    ) from error
            logger.warning(f"{url} broke off; trying again.")
            time.sleep(attempt)


def _receive(url: str, partial: Path, show: bool) -> None:
    have = partial.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        goes_on = getattr(response, "status", None) == 206
        have = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with partial.open("ab" if goes_on else "wb") as file:
            while chunk := response.read(CHUNK):
                have += file.write(chunk)
                if show:
                    print(f"\r{partial.name}: {have} of {total} bytes", end="", file=sys.stderr)
    if total is not None and have != total:
        raise EOFError(f"{have} of {total} bytes arrived")
