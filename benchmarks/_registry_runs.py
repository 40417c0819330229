"""Makes run directories and MLflow stores of a chosen size, for ``registry.py``."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

HPARAMS, METRICS, ROWS = 80, 40, 1000
START = 1_700_000_000


def run_ids(n: int) -> list[str]:
    """Ids of twelve hexadecimal digits."""
    rng = random.Random(0)
    return [f"{rng.getrandbits(48):012x}" for _ in range(n)]


def hparams(rng: random.Random) -> dict[str, object]:
    """As of a flattened configuration: rates, sizes, names."""
    values: dict[str, object] = {f"module.block{i}.width": 64 * (i + 1) for i in range(HPARAMS - 4)}
    lr = rng.choice([0.03, 0.1, 0.3])
    name = rng.choice(["LARS", "AdamW"])
    return {
        "module.optim.optimizer.lr": lr,
        "module.optim.optimizer.type": name,
        "trainer.max_epochs": 100,
        "seed": rng.randrange(5),
        **values,
    }


def metrics(rng: random.Random) -> dict[str, float]:
    """Last values, as trackers keep them."""
    others = {f"eval/layer{i}/knn_acc": rng.random() for i in range(METRICS - 2)}
    return {"fit/loss": rng.random(), "eval/knn_acc": rng.random(), **others}


def build_runs(cache_dir: Path, n: int) -> None:
    """``n`` runs, each in a folder of its own second, 2,000 a day.

    The rows of all runs are the same file, linked: no question reads them.
    """
    rng = random.Random(1)
    rows = "".join(f"{i},{i / 7:.4f},{i / 11:.4f},{i / 13:.4f}\n" for i in range(ROWS))
    source = ""
    for i, run_id in enumerate(run_ids(n)):
        created = START + 43 * i
        stamp = time.strftime("%Y%m%d/%H%M%S", time.gmtime(created))
        folder = f"{cache_dir}/runs/{stamp}/{run_id}"
        os.makedirs(folder)
        sidecar = {
            "schema_version": 1, "run_id": run_id, "run_dir": folder, "status": "completed",
            "created_at": float(created), "ended_at": created + 9.0, "updated_at": created + 9.0,
            "tags": [f"sweep:{i // 100}", "bench"], "notes": "", "hparams": hparams(rng),
            "config": {}, "summary": metrics(rng), "checkpoint_path": f"{folder}/last.ckpt",
        }  # fmt: skip
        with open(f"{folder}/sidecar.json", "w") as file:
            json.dump(sidecar, file, indent=2)
        open(f"{folder}/heartbeat", "w").close()
        if i % 10_000 == 0:  # a file has a limited number of links
            source = f"{folder}/metrics.csv"
            Path(source).write_text("step,fit/loss,eval/knn_acc,lr\n" + rows)
        else:
            os.link(source, f"{folder}/metrics.csv")


def build_mlflow_sql(path: Path, n: int) -> None:
    """The same runs in MLflow's SQLite store, with the rows of the first thousand runs only.

    The tables are made by MLflow and filled directly: through its API it would take hours.
    """
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(f"sqlite:///{path}").create_experiment("bench")
    connection = sqlite3.connect(path)
    for table, rows in (
        ("runs", _sql_runs(n, int(experiment))),
        ("params", _sql_params(n)),
        ("latest_metrics", _sql_metrics(n)),
        ("metrics", _sql_rows(min(n, 1000))),
    ):
        first = next(rows)
        names = ", ".join(first)
        marks = ", ".join(f":{name}" for name in first)
        insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        connection.execute(insert, first)
        connection.executemany(insert, rows)
    connection.commit()
    connection.execute("ANALYZE")
    connection.close()


def _sql_runs(n: int, experiment: int) -> Iterator[dict[str, object]]:
    for i, run_id in enumerate(run_ids(n)):
        yield {
            "run_uuid": run_id, "name": run_id, "source_type": "LOCAL", "user_id": "u",
            "status": "FINISHED", "start_time": 1000 * (START + 43 * i), "experiment_id": experiment,
            "end_time": 1000 * (START + 43 * i + 9), "lifecycle_stage": "active",
            "artifact_uri": f"/artifacts/{run_id}",
        }  # fmt: skip


def _sql_params(n: int) -> Iterator[dict[str, object]]:
    rng = random.Random(1)
    for run_id in run_ids(n):
        for key, value in hparams(rng).items():
            yield {"run_uuid": run_id, "key": key, "value": str(value)}
        metrics(rng)


def _sql_metrics(n: int) -> Iterator[dict[str, object]]:
    rng = random.Random(1)
    for run_id in run_ids(n):
        hparams(rng)
        for key, value in metrics(rng).items():
            yield {
                "run_uuid": run_id, "key": key, "value": value, "timestamp": 1000 * START,
                "step": ROWS - 1, "is_nan": 0,
            }  # fmt: skip


def _sql_rows(n: int) -> Iterator[dict[str, object]]:
    for run_id in run_ids(n):
        for step in range(ROWS):
            yield {
                "run_uuid": run_id, "key": "fit/loss", "value": 1.0, "timestamp": START + step,
                "step": step, "is_nan": 0,
            }  # fmt: skip


def build_mlflow_files(store: Path, n: int) -> None:
    """The same runs in MLflow's file store; each metric's history is one last line."""
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(store.as_uri()).create_experiment("bench")
    rng = random.Random(1)
    for i, run_id in enumerate(run_ids(n)):
        folder = store / experiment / run_id
        values = {"params": hparams(rng), "metrics": metrics(rng)}
        meta = {
            "artifact_uri": "''", "end_time": 1000 * (START + 43 * i + 9),
            "entry_point_name": "''", "experiment_id": f"'{experiment}'",
            "lifecycle_stage": "active", "run_id": f"'{run_id}'", "run_uuid": f"'{run_id}'",
            "run_name": f"'{run_id}'", "source_name": "''", "source_type": 4,
            "source_version": "''", "start_time": 1000 * (START + 43 * i), "status": 3,
            "user_id": "u", "tags": [],
        }  # fmt: skip
        (folder / "tags").mkdir(parents=True)
        (folder / "artifacts").mkdir()
        (folder / "meta.yaml").write_text("".join(f"{k}: {v}\n" for k, v in meta.items()))
        for kind, items in values.items():
            for key, value in items.items():
                path = folder / kind / key
                path.parent.mkdir(parents=True, exist_ok=True)
                line = f"{1000 * START} {value} {ROWS - 1}\n" if kind == "metrics" else str(value)
                path.write_text(line)
