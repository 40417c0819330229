"""``metrics.csv`` as a DataFrame, whatever state a run was left in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spt_registry._metrics_file import read_header, read_late

if TYPE_CHECKING:
    import pandas as pd


def read_history(run_dir: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The logged metrics of a run, one row per call, missing values NaN.

    A torn last line is left out, and so are lines of another width than the header's; cells that
    still wait in ``metrics.late.csv`` are put in their place.

    Args:
        run_dir: The run's directory.
        columns: Metrics to read; all by default. ``step`` comes first.

    Raises:
        KeyError: If there is no such metric.
    """
    import pandas as pd

    path = Path(run_dir) / "metrics.csv"
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return pd.DataFrame({"step": pd.Series(dtype="int64")})
    late = read_late(path.with_name("metrics.late.csv"))
    late_names = list(dict.fromkeys(name for cells in late.values() for name in cells))
    header = read_header(path)
    known = list(dict.fromkeys([*header, *late_names]))
    wanted = known if columns is None else list(dict.fromkeys(["step", *columns]))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise KeyError(f"{path} has no {unknown}; there are {known}.")
    frame = _read_csv(whole, [name for name in header if name in wanted])
    for name in wanted:
        if name not in frame:
            frame[name] = float("nan")
    for row, cells in late.items():
        if row < len(frame) and str(frame["step"].iat[row]) == cells["step"]:
            for name in cells.keys() & set(wanted) - {"step"}:
                frame.loc[row, name] = float(cells[name] or "nan")
    return frame[wanted]


def _read_csv(content: bytes, columns: list[str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.csv

    numbers = {name: pa.float64() for name in columns if name not in ("step", "epoch")}

    def read(types: dict[str, pa.DataType]) -> pa.Table:
        return pyarrow.csv.read_csv(
            pa.BufferReader(content),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=columns, column_types=types),
        )

    try:
        table = read(numbers)
    except pa.ArrowInvalid:  # another writer's file with text in it
        table = read({})
    frame: pd.DataFrame = table.to_pandas()
    return frame
