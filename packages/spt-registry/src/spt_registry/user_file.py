"""``user.json``: what people say about a run, apart from what its process writes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spt_registry.run.files import atomic_write_json
from spt_registry.sidecar import BrokenSidecarError


def apply_edits(sidecar: dict[str, Any], edits: dict[str, Any]) -> None:
    """Put what people say about a run over its sidecar."""
    if not edits:
        return
    removed = set(edits.get("removed_tags", []))
    tags = [tag for tag in map(str, sidecar.get("tags", [])) if tag not in removed]
    sidecar["tags"] = list(dict.fromkeys([*tags, *edits.get("added_tags", [])]))
    for key in ("notes", "display_name", "archived"):
        if key in edits:
            sidecar[key] = edits[key]


def read_user_file(folder: str | Path) -> dict[str, Any]:
    """A run's ``user.json``; empty without one.

    Raises:
        BrokenSidecarError: If it is of no use.
    """
    try:
        with open(f"{folder}/user.json", encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BrokenSidecarError(f"its user.json is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenSidecarError(f"its user.json holds a {type(value).__name__}, not an object")
    for key in ("added_tags", "removed_tags"):
        if not isinstance(value.get(key, []), list) or not all(
            isinstance(tag, str) for tag in value.get(key, [])
        ):
            raise BrokenSidecarError(f"{key!r} in its user.json is no list of strings")
    if not isinstance(value.get("notes", ""), str):
        raise BrokenSidecarError("'notes' in its user.json is no text")
    return value


def edit_user_file(
    folder: str | Path,
    *,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    notes: str | None = None,
) -> dict[str, Any]:
    """Change what people say about a run, and let the next scan see it.

    Args:
        folder: The run's directory.
        add_tags: Labels to add.
        remove_tags: Labels to take away, also those that its process gave.
        notes: New notes.

    Raises:
        ValueError: If a tag is empty, too long or holds control characters or commas.
    """
    for tag in (*add_tags, *remove_tags):
        if not tag.strip() or len(tag) > 200 or "," in tag or not tag.isprintable():
            raise ValueError(
                f"A tag must have 1 to 200 printable characters and no comma, got {tag!r}."
            )
    edits = read_user_file(folder)
    added = [tag for tag in edits.get("added_tags", []) if tag not in remove_tags]
    removed = [tag for tag in edits.get("removed_tags", []) if tag not in add_tags]
    edits["added_tags"] = list(dict.fromkeys([*added, *add_tags]))
    edits["removed_tags"] = list(dict.fromkeys([*removed, *remove_tags]))
    if notes is not None:
        edits["notes"] = notes
    atomic_write_json(Path(folder) / "user.json", edits)
    os.utime(f"{folder}/sidecar.json")
    return edits
