"""The pages as HTML without scripts; whatever a run says is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from spt_registry.index.history import read_history
from spt_registry.index.query import Registry
from spt_registry.index.record import RunRecord

PER_PAGE = 100
WIDTH, HEIGHT, BUCKETS = 360, 120, 180
STYLE = """
body { font: 14px sans-serif; margin: 2em; color: #111; background: #fff }
table { border-collapse: collapse } td, th { padding: .2em .8em .2em 0; text-align: left }
tr:hover { background: #eef } input { width: 32em } figure { display: inline-block; margin: 1em }
polyline { fill: none; stroke: #36c; stroke-width: 1.5 } .bad { color: #b00 }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #111 } a { color: #9bf }
tr:hover { background: #223 } polyline { stroke: #9bf } }
"""


def page(title: str, body: str) -> str:
    """A whole page."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<link rel="stylesheet" href="/style.css"><h1>{escape(title)}</h1>{body}</html>'
    )


def list_page(registry: Registry, where: str, sort: str, number: int) -> str:
    """The table of runs, a hundred on a page."""
    try:
        found = registry.query(
            where=where or None, sort_by=sort or None, limit=(number + 1) * PER_PAGE + 1
        )
        trouble = ""
    except ValueError as error:
        found, trouble = [], f'<p class="bad">{escape(str(error))}</p>'
    shown = found[number * PER_PAGE : (number + 1) * PER_PAGE]
    names = sorted({name for record in shown for name in record.summary})[:5]
    head = "".join(f"<th>{escape(n)}</th>" for n in ("run", "status", "created", "tags", *names))
    rows = "".join(_row(registry, record, names) for record in shown)
    form = (
        '<form><input name="where" placeholder="acc &gt; 0.8 and &quot;best&quot; in tags" '
        f'value="{escape(where)}"> sort by <input name="sort" value="{escape(sort)}">'
        "<button>show</button></form>"
    )
    more = ""
    if len(found) > len(shown) + number * PER_PAGE:
        query = urlencode({"where": where, "sort": sort, "page": number + 1})
        more = f'<p><a href="/?{escape(query)}">more</a></p>'
    return page("Runs", f"{form}{trouble}<table><tr>{head}</tr>{rows}</table>{more}")


def _row(registry: Registry, record: RunRecord, names: Sequence[str]) -> str:
    query = urlencode({"path": str(record.run_dir.relative_to(registry.cache_dir))})
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created_at))
    texts = [record.status, created, ", ".join(record.tags)]
    texts += [_text(record.summary.get(name)) for name in names]
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    link = f'<a href="/run?{escape(query)}">{escape(record.run_id)}</a>'
    return f"<tr><td>{link}</td>{cells}</tr>"


def run_page(record: RunRecord) -> str:
    """One run: its charts, metrics, hyper-parameters."""
    facts = {
        "status": record.status,
        "directory": record.run_dir,
        "tags": ", ".join(record.tags),
        "notes": record.notes,
        "checkpoint": record.checkpoint_path,
    }
    parts = [_table(facts), *_charts(record)]
    parts += ["<h2>Last metrics</h2>", _table(record.summary)]
    parts += ["<h2>Hyper-parameters</h2>", _table(record.hparams)]
    if record.error:
        parts.append(f"<h2>Error</h2><pre>{escape(record.error)}</pre>")
    return page(record.run_id, '<p><a href="/">all runs</a></p>' + "".join(parts))


def _table(values: object) -> str:
    items = sorted(dict(values).items())  # type: ignore[call-overload]
    rows = (f"<tr><th>{escape(key)}</th><td>{escape(_text(v))}</td></tr>" for key, v in items)
    return f"<table>{''.join(rows)}</table>"


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _charts(record: RunRecord) -> list[str]:
    history = read_history(record.run_dir)
    numeric = history.select_dtypes("number")
    steps = history["step"].tolist()
    names = [name for name in numeric.columns if name not in ("step", "epoch")]
    charts = [chart(name, steps, numeric[name].tolist()) for name in names[:60]]
    return [one for one in charts if one]


def chart(name: str, steps: Sequence[float], values: Sequence[float]) -> str:
    """A curve as SVG; of a long one the least and the greatest value of each stretch."""
    points = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    if not points:
        return ""
    size = max(1, len(points) // BUCKETS)
    kept = []
    for i in range(0, len(points), size):
        stretch = points[i : i + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    low, high = min(v for _, v in kept), max(v for _, v in kept)
    first, last = kept[0][0], kept[-1][0]
    across, up = WIDTH / ((last - first) or 1), HEIGHT / ((high - low) or 1)
    line = " ".join(f"{(s - first) * across:.1f},{HEIGHT - (v - low) * up:.1f}" for s, v in kept)
    caption = f"{escape(name)} ({low:.4g} to {high:.4g}, steps {first:g} to {last:g})"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<figure><svg {box}><polyline points="{line}"/></svg><figcaption>{caption}</figcaption></figure>'
