"""Scanning and asking a registry of N runs, beside MLflow's stores and a plain `glob` with `json.load`.

Each run has 80 hyper-parameters, 40 last metrics and 1,000 logged rows. Times are medians of several
turns; `ls` is a process of its own, its start included. MLflow answers in a warm process.

    python benchmarks/registry.py [--quick] [--n=1000,10000,100000] [--peers=1000,10000] [--stress=60]
        [--stores=SQLite,files]
        [--folder=PATH]   where runs and stores are built once and kept; else they are removed
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _registry_runs import build_mlflow_files, build_mlflow_sql, build_runs
from spt_registry import RunWriter, open_registry
from spt_registry.index.query import Registry

TAG, LR = "sweep:3", 0.1


def median_s(function: Callable[[], Any], turns: int) -> float:
    """Median time of a call in seconds."""
    times = []
    for _ in range(turns):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def report(n: int, who: str, what: str, seconds: float) -> None:
    print(f"{n:>8,}  {who:<20} {what:<32} {seconds:9.3f} s", flush=True)


def ours(folder: Path, n: int, turns: int) -> None:
    """All scans and questions of this package."""
    cache = folder / f"runs{n}"
    if not cache.exists():
        build_runs(cache, n)
        time.sleep(2.5)  # folders count as settled after two seconds
    registry = Registry(cache, cache / "registry.db")

    def full_scan() -> None:
        for suffix in ("", "-wal", "-shm"):
            (cache / f"registry.db{suffix}").unlink(missing_ok=True)
        registry.scan()

    report(n, "spt-registry", "full scan", median_s(full_scan, min(turns, 3)))
    report(n, "spt-registry", "unchanged scan", median_s(registry.scan, turns))
    found = registry.scan()
    report(n, "spt-registry", "scan after 1 % changed", scan_after_change(registry, n, turns))
    command = [sys.executable, "-m", "spt_registry.cli", "ls", "--cache-dir", str(cache)]
    ask_ls = lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
    report(n, "spt-registry", "`ls`, cold process, all rows", median_s(ask_ls, turns))
    for what, question in questions(registry).items():
        report(n, "spt-registry", what, median_s(question, turns))
    print(f"{'':8}  file-system calls per unchanged run: {found.calls / found.total_sidecars:.2f}")
    print(f"{'':8}  memory of a process that scans in full and asks: {memory_mb(cache):.0f} MB")


def questions(registry: Registry) -> dict[str, Callable[[], Any]]:
    return {
        "best 5 by a metric": lambda: registry.query(sort_by="eval/knn_acc", limit=5),
        "query by tag": lambda: registry.query(tag=TAG),
        "query by hyper-parameter, 100": lambda: registry.query(
            hparams={"module.optim.optimizer.lr": LR}, limit=100
        ),
    }


def scan_after_change(registry: Registry, n: int, turns: int) -> float:
    paths = sorted(registry.cache_dir.glob("runs/*/*/*/sidecar.json"))[:: max(1, n // (n // 100))]
    times = []
    for _ in range(turns):
        for path in paths:
            fresh = path.with_suffix(".new")
            fresh.write_bytes(path.read_bytes())
            os.replace(fresh, path)
        started = time.perf_counter()
        assert registry.scan().upserted == len(paths)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def memory_mb(cache: Path) -> float:
    """Most memory at any time; not from getrusage, which begins with this process's own."""
    program = (
        "import re, sys\nfrom pathlib import Path\nfrom spt_registry.index.query import Registry\n"
        "registry = Registry(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "registry.scan(full=True); registry.scan(); registry.query(sort_by='eval/knn_acc', limit=5)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, str(cache), f"{folder}/fresh.db"]
        return float(subprocess.run(command, check=True, capture_output=True).stdout) / 1024


def plain_files(folder: Path, n: int, turns: int) -> None:
    """What a notebook does without a registry."""

    def read() -> list[dict[str, Any]]:
        found = []
        for path in glob.iglob(f"{folder}/runs{n}/runs/*/*/*/sidecar.json"):
            with open(path) as file:
                found.append(json.load(file))
        return found

    def best() -> list[dict[str, Any]]:
        return sorted(read(), key=lambda run: -run["summary"]["eval/knn_acc"])[:5]

    report(n, "glob + json.load", "best 5 by a metric", median_s(best, min(turns, 3)))
    report(
        n, "glob + json.load", "query by tag",
        median_s(lambda: [run for run in read() if TAG in run["tags"]], min(turns, 3)),
    )  # fmt: skip


def mlflow_store(folder: Path, n: int, turns: int, kind: str) -> None:
    """The same questions to MLflow; its stores are made beforehand."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.tracking import MlflowClient

    if kind == "SQLite":
        path, build, scheme = folder / f"mlflow{n}.db", build_mlflow_sql, "sqlite:///"
    else:
        path, build, scheme = folder / f"mlruns{n}", build_mlflow_files, "file://"
        turns = turns if n <= 1000 else 1
    if not path.exists():
        build(path, n)
    client = MlflowClient(f"{scheme}{path}")
    experiment = client.get_experiment_by_name("bench").experiment_id

    def ask(text: str, order: list[str], count: int) -> list[Any]:
        return list(client.search_runs([experiment], text, order_by=order, max_results=count))

    def everything() -> int:
        total, token = 0, None
        while total == 0 or token:
            page = client.search_runs([experiment], max_results=1000, page_token=token)
            total, token = total + len(page), page.token
        return total

    who = f"MLflow, {kind}"
    best = median_s(lambda: ask("", ["metrics.`eval/knn_acc` DESC"], 5), turns)
    report(n, who, "best 5 by a metric", best)

    def ask_for_lr() -> None:
        assert len(ask("params.`module.optim.optimizer.lr` = '0.1'", [], 100)) > 50

    report(n, who, "query by hyper-parameter, 100", median_s(ask_for_lr, turns))
    report(n, who, "list all, warm process", median_s(everything, 1))


def row_cost(folder: Path, num_rows: int) -> None:
    """What a training step pays for a row, and what writing the rows takes in all."""
    path = folder / "rows"
    shutil.rmtree(path, ignore_errors=True)
    started = time.perf_counter()
    with RunWriter(path) as run:
        row = {"loss": 0.5, "acc": 0.25, "lr": 0.1}
        log_s = median_s(lambda: run.log_metrics(row), num_rows)
    total_s = time.perf_counter() - started
    print(
        f"a row of 3 metrics: {1e6 * log_s:.1f} us in the step; {num_rows:,} rows on disk after {total_s:.2f} s"
    )


def stress(folder: Path, seconds: float) -> None:
    """64 processes write, 4 scan and query; every row must be there in the end."""
    cache = folder / "stress"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    until = time.monotonic() + seconds
    children = [start(cache, f"w{i}", lambda i=i: write_rows(cache, i, until)) for i in range(64)]
    children += [start(cache, f"s{i}", lambda: keep_asking(cache, until)) for i in range(4)]
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    registry = open_registry(cache_dir=cache, scan_ttl_s=0)
    logged = {f"w{i}": int((cache / f"w{i}.rows").read_text()) for i in range(64)}
    kept = {run_id: len(registry.history(run_id)) for run_id in logged}
    asked = sum(int(path.read_text()) for path in cache.glob("*.asked"))
    print(
        f"64 writers and 4 scanners for {seconds:.0f} s: {sum(logged.values()):,} rows logged, "
        f"{sum(logged.values()) - sum(kept.values())} lost, {asked:,} scans with queries, "
        f"{failed} processes with an error"
    )
    for path in cache.glob("*.error"):
        print(path.read_text())


def start(cache: Path, name: str, function: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 0
        try:
            function()
        except BaseException:
            (cache / f"{name}.error").write_text(traceback.format_exc())
            code = 1
        os._exit(code)
    return child


def write_rows(cache: Path, i: int, until: float) -> None:
    step = 0
    with RunWriter(cache / "runs" / "20240101" / f"{i % 9:06}" / f"w{i}") as run:
        while step < 5 or time.monotonic() < until:
            run.log_metrics({"loss": 1 / (step + 1), "acc": step}, step=step)
            step += 1
            time.sleep(0.01)
    (cache / f"w{i}.rows").write_text(str(step))


def keep_asking(cache: Path, until: float) -> None:
    asked = 0
    while time.monotonic() < until:
        open_registry(cache_dir=cache, scan_ttl_s=0).query(sort_by="loss", limit=5)
        asked += 1
    (cache / f"{os.getpid()}.asked").write_text(str(asked))


def numbers(arguments: list[str], name: str, default: str) -> list[int]:
    return list(map(int, words(arguments, name, default)))


def words(arguments: list[str], name: str, default: str) -> list[str]:
    given = [a.partition("=")[2] for a in arguments if a.startswith(f"--{name}=")]
    return [word for word in (given or [default])[0].split(",") if word]


def main(arguments: list[str]) -> None:
    """Print one line per question."""
    quick = "--quick" in arguments
    sizes = numbers(arguments, "n", "300" if quick else "1000,10000,100000")
    peers = numbers(arguments, "peers", "300" if quick else "1000,10000")
    turns = 2 if quick else 5
    given = words(arguments, "folder", "")
    folder = (
        Path(given[0]).absolute() if given else Path(tempfile.mkdtemp(prefix="registry-bench-"))
    )
    try:
        for seconds in numbers(arguments, "stress", "3" if quick else "60"):
            stress(folder, seconds)  # first: it forks, and MLflow starts threads
        row_cost(folder, 1000 if quick else 100_000)
        for n in sizes:
            ours(folder, n, turns if n <= 10_000 else 2)
            plain_files(folder, n, turns if n <= 10_000 else 1)
        for n in peers:
            for kind in words(arguments, "stores", "SQLite,files"):
                mlflow_store(folder, n, turns, kind)
    finally:
        if not given:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
