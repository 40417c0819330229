"""Runs as tables for other tools: pandas, Arrow, Parquet, CSV, JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spt_registry.index.record import RunRecord, as_row
from spt_registry.run.files import atomic_file, to_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = ("csv", "parquet", "json")


def to_dataframe(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per run; the columns of hyper-parameters, then those of metrics, in order."""
    import pandas as pd

    rows = [as_row(record) for record in records]
    return pd.DataFrame(rows, columns=column_names(rows)) if rows else pd.DataFrame()


def column_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """All columns: the fields as they come, hyper-parameters and metrics sorted."""
    names = {name: None for row in rows for name in row}
    fields = [name for name in names if not name.startswith(("hparams.", "summary."))]
    return [*fields, *sorted(name for name in names if name.startswith(("hparams.", "summary.")))]


def to_arrow(records: Sequence[RunRecord]) -> pa.Table:
    """One row per run; each column has one type: numbers, true and false, or text."""
    import pyarrow as pa

    rows = [as_row(record) for record in records]
    columns = {name: [row.get(name) for row in rows] for name in column_names(rows)}
    return pa.table({name: _array(name, values) for name, values in columns.items()})


def _array(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if name == "tags":
        return pa.array(values, pa.list_(pa.string()))
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    words = [v if v is None or isinstance(v, str) else json.dumps(to_json(v)) for v in values]
    return pa.array(words, pa.string())


def write_table(records: Sequence[RunRecord], path: str | Path, form: str) -> None:
    """Write runs to a file, which appears whole or not at all.

    Args:
        records: The runs.
        path: The file.
        form: ``csv`` (tags joined by commas), ``parquet``, or ``json`` (one object per line).

    Raises:
        ValueError: If the format is another one.
    """
    if form not in FORMATS:
        raise ValueError(f"`form` must be one of {FORMATS}, got {form!r}.")
    with atomic_file(path) as file:
        if form == "parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(to_arrow(records), file)
        elif form == "json":
            for record in records:
                file.write((json.dumps(json_row(record)) + "\n").encode())
        else:
            frame = to_dataframe(records)
            if len(frame):
                frame["tags"] = frame["tags"].map(",".join)
            file.write(frame.to_csv(index=False).encode())


def json_row(record: RunRecord) -> dict[str, Any]:
    """A record as one flat JSON object; non-finite numbers are null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else to_json(value)
        for key, value in as_row(record).items()
    }
