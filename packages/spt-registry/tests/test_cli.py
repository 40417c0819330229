"""The command line: every command, for people and for programs."""

import json
import os
import pty
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner
from spt_registry.cli import cli


def commands():
    return sorted(cli.commands)


@pytest.fixture
def cache(tmp_path, put):
    put("alpha", summary={"acc": 0.5, "loss": 2.0}, hparams={"lr": 0.1, "n": 1}, tags=["x"])
    put(
        "beta",
        created=1_700_000_100.0,
        summary={"acc": 0.9},
        hparams={"lr": 0.3, "n": 1},
        tags=["x"],
    )
    put("gamma", created=1_700_000_200.0, status="failed", error="Traceback\nboom")
    put("live", created=1_700_000_300.0, status="running", beat=0)
    (put("delta", created=1_700_000_400.0) / "metrics.csv").write_text("step,loss\n0,1.0\n1,0.5\n")
    return tmp_path


@pytest.fixture
def run(cache):
    def invoke(*args, code=0, **kwargs):
        env = {"SPT_CACHE_DIR": str(cache)}
        result = CliRunner().invoke(cli, args, env=env, prog_name="spt-registry", **kwargs)
        assert result.exit_code == code, result.output
        return result

    return invoke


def test_there_are_all_commands():
    names = "ls best show export scan migrate diff history tag note rm doctor completion web"
    assert commands() == sorted(names.split())


@pytest.mark.parametrize("name", commands())
def test_help_has_examples_that_parse(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    examples = [
        line.split() for line in result.output.splitlines() if line.startswith("    spt-registry ")
    ]
    examples = examples or [["spt-registry", name]]
    assert "Examples:" in result.output
    assert all(words[:2] == ["spt-registry", name] for words in examples)
    options = {o for p in cli.commands[name].params for o in (*p.opts, *p.secondary_opts)}
    given = {w for words in examples for w in words if w.startswith("--")}
    assert given <= options | {"--cache-dir"}


def test_ls(run):
    lines = [line.split("\t") for line in run("ls").output.splitlines()]
    assert lines[0] == ["run_id", "status", "created", "tags", "acc", "loss"]
    assert [line[0] for line in lines[1:]] == ["delta", "live", "gamma", "beta", "alpha"]
    assert lines[-1][1:2] + lines[-1][3:] == ["completed", "x", "0.5", "2"]
    assert run("ls", "--sort", "acc", "-n", "1").output.splitlines()[1].startswith("beta")
    assert run("ls", "--where", "hparams.lr < 0.2").output.splitlines()[1].startswith("alpha")
    assert run("ls", "--alive").output.splitlines()[1].startswith("live")
    shown = run("ls", "--columns", "hparams.lr,updated_at", "--tag", "x").output.splitlines()
    assert shown[0].endswith("hparams.lr\tupdated_at")
    rows = [json.loads(line) for line in run("ls", "--json").output.splitlines()]
    assert rows[-1]["summary.acc"] == 0.5
    assert rows[-1]["tags"] == ["x"]
    assert "No runs found." in run("ls", "--tag", "nobody").output


def test_best(run):
    assert [line.split("\t")[:2] for line in run("best", "acc").output.splitlines()[1:]] == [
        ["beta", "0.9"],
        ["alpha", "0.5"],
    ]
    assert json.loads(run("best", "acc", "--asc", "-n", "1", "--json").output)["run_id"] == "alpha"
    missing = run("best", "accuracy", code=1)
    assert "No completed run has a number for 'accuracy'; there are acc, loss." in missing.output


def test_show_and_diff_and_history(run):
    assert "hparams.lr\t0.1\n" in run("show", "alp").output
    assert "error\tboom\n" in run("show", "gamma").output
    assert json.loads(run("show", "beta", "--json").output)["hparams.lr"] == 0.3
    assert run("diff", "alpha", "beta").output == "key\talpha\tbeta\nlr\t0.1\t0.3\n"
    metrics = run("diff", "alpha", "beta", "--metrics", "--json").output.splitlines()
    assert json.loads(metrics[-1]) == {"key": "summary.loss", "values": [2.0, None]}
    assert "do not differ" in run("diff", "alpha", "alpha").output
    assert "two or more" in run("diff", "alpha", code=2).output
    assert run("history", "delta").output == "step\tloss\n0\t1\n1\t0.5\n"
    assert json.loads(run("history", "delta", "loss", "-n", "1", "--json").output)["loss"] == 0.5
    assert "has no ['acc']" in run("history", "delta", "acc", code=1).output
    assert "No run 'zeta'" in run("show", "zeta", code=1).output


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_export(run, cache, suffix):
    import pandas as pd

    out = cache / f"out.{suffix}"
    assert "2 runs in" in run("export", str(out), "--tag", "x").output
    reader = {"csv": pd.read_csv, "parquet": pd.read_parquet}.get(
        suffix, lambda path: pd.DataFrame(map(json.loads, path.read_text().splitlines()))
    )
    frame = reader(out)
    assert frame["run_id"].tolist() == ["beta", "alpha"]
    assert frame["hparams.lr"].tolist() == [0.3, 0.1]
    assert list(frame.columns[:9]) == (
        [
            "run_id",
            "status",
            "alive",
            "created_at",
            "updated_at",
            "run_dir",
            "checkpoint_path",
            "tags",
            "notes",
        ]
    )


def test_export_refuses_what_it_cannot_write(run, cache):
    assert "must end with" in run("export", str(cache / "x.xls"), code=2).output
    assert "There is no folder" in run("export", str(cache / "no" / "x.csv"), code=1).output


def test_tags_and_notes_outlive_the_process_and_its_rewrites(run, cache, put):
    assert run("tag", "alpha", "best", "paper").output == "x, best, paper\n"
    assert run("tag", "alpha", "x", "--remove").output == "best, paper\n"
    run("note", "alpha", "a word")
    assert json.loads(run("show", "alpha", "--json").output)["notes"] == "a word"
    put("alpha", tags=["x", "y"], notes="of the process")  # which goes on writing
    shown = json.loads(run("show", "alpha", "--json").output)
    assert (shown["tags"], shown["notes"]) == (["y", "best", "paper"], "a word")
    for tag in ("", "a,b", "x\ny", "t" * 201):
        assert "A tag must have 1 to 200" in run("tag", "alpha", tag, code=1).output


def test_rm_moves_to_the_trash_after_a_yes(run, cache):
    (path,) = cache.glob("runs/*/*/alpha")
    assert "Aborted" in run("rm", "alpha", input="n\n", code=1).output
    assert path.is_dir()
    run("rm", "alpha", "beta", input="y\n")
    assert not path.exists()
    assert len(list(cache.glob("trash/*/runs/*/*/alpha/sidecar.json"))) == 1
    assert "alpha" not in run("ls").output
    assert "is running; end it first" in run("rm", "live", "-y", code=1).output
    (gone,) = cache.glob("runs/*/*/gamma")
    run("ls")
    gone.rename(cache / "gamma")
    assert "orphaned" in run("ls").output
    assert "forgotten" in run("rm", "gamma", "-y").output
    assert "gamma" not in run("ls").output


def test_a_run_directory_is_never_taken_from_the_sidecar(run, cache, put, tmp_path_factory):
    victim = tmp_path_factory.mktemp("victim")
    put("evil", folder="x/evil", run_dir=str(victim))
    put("../../escape", folder="x/y")
    run("rm", "evil", "../../escape", "-y")
    assert victim.is_dir()
    assert len(list(cache.glob("trash/*/runs/x/*/sidecar.json"))) == 2
    assert not list(cache.parent.glob("escape*"))


def test_doctor(run, cache, put):
    (one,) = cache.glob("runs/*/*/alpha")
    put("live", created=1_700_000_300.0, status="running", beat=0, updated_at=time.time())
    assert "nothing wrong" in run("doctor").output
    put("alpha", folder="copy/alpha")
    put("bad", text="{")
    put("dead", folder="x/dead", status="running", beat=-10_000)
    put("stalled", folder="x/stalled", status="running", beat=0)
    put("other", folder="x/renamed")
    put("future", folder="x/future", updated_at=4e9)
    half = cache / "runs" / "20240101" / "000000" / "half"
    half.mkdir(parents=True)
    for path in (half / "run_meta.json", one / "run_meta.json", one / ".sidecar.json.1.ab.tmp"):
        path.touch()
        os.utime(path, (1, 1))
    (gone,) = cache.glob("runs/*/*/beta")
    gone.rename(cache / "beta")
    found = [json.loads(line) for line in run("doctor", "--json", code=1).output.splitlines()]
    assert sorted(one["kind"] for one in found) == [
        "broken", "clock", "duplicate", "half-made", "leftover", "lost", "orphaned", "renamed",
        "stalled",
    ]  # fmt: skip
    by_kind = {one["kind"]: one for one in found}
    assert by_kind["broken"]["path"].endswith("bad/sidecar.json")
    assert "it is no JSON" in by_kind["broken"]["explanation"]
    assert "copy/alpha" in by_kind["duplicate"]["path"] + by_kind["duplicate"]["explanation"]
    assert all(len(one["explanation"]) > 40 for one in found)


def test_scan_and_migrate(run, cache, tmp_path_factory):
    assert run("scan").output.startswith(
        "scan: 5 sidecars, 5 upserted, 0 unchanged, 0 invalid, 0 orph"
    )
    assert "5 upserted" in run("scan", "--full").output
    empty = tmp_path_factory.mktemp("empty")
    assert "There are no runs" in run("scan", "--cache-dir", str(empty)).output
    source = os.path.join(os.path.dirname(__file__), "golden", "mlflow_store")
    assert "migrate: 2 written" in run("migrate", source).output
    assert "neither a registry.db" in run("migrate", str(empty), code=1).output


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("ls", "--where", "1; DROP TABLE runs"), 2, "`where` must be comparisons"),
        (("ls", "--limit", "-1"), 2, "-1 is not in the range"),
        (("nothing",), 2, "No such command"),
        (("ls", "--cache-dir", "/no/such/place"), 1, "There is no cache directory"),
        (("show", "a b'; --"), 1, "No run"),
    ],
)
def test_failures_have_a_message_and_an_exit_code(run, args, code, message):
    assert message in run(*args, code=code).output


def test_names_cannot_move_the_cursor_or_forge_a_row(run, put):
    put("x\x1b[2Jy\tz\nforged\tcompleted", folder="x/evil", tags=["[red]t[/red]", "a\rb"])
    output = run("ls").output
    assert "\x1b" not in output
    assert "\r" not in output
    assert len(output.splitlines()) == 7
    assert r"x\x1b[2Jy\tz\nforged\tcompleted" in output
    assert "[red]t[/red]" in output


def on_a_terminal(cache, *args):
    """What the command prints on a terminal."""
    leader, follower = pty.openpty()
    env = {**os.environ, "SPT_CACHE_DIR": str(cache), "COLUMNS": "200", "TERM": "xterm"}
    command = [sys.executable, "-m", "spt_registry.cli", *args]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    output = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the other side has closed
            break
        if not block:
            break
        output += block
    os.close(leader)
    assert process.wait() == 0, output.decode()
    return output.decode()


def test_a_terminal_gets_a_table_and_names_are_no_markup(cache, put):
    put("evil", folder="x/evil", tags=["[bold]b[/bold]"], created=1_700_000_500.0)
    output = on_a_terminal(cache, "ls")
    assert "┏━━" in output
    assert "run_id" in output
    assert "[bold]b[/bold]" in output


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("best", "acc"), ("beta", "0.9")),
        (("show", "gamma"), ("gamma", "Traceback\r\nboom")),
        (("diff", "alpha", "beta"), ("lr", "0.3")),
        (("history", "delta"), ("step", "0.5")),
    ],
)
def test_every_table_is_drawn_on_a_terminal(cache, args, shown):
    output = on_a_terminal(cache, *args)
    assert "┏━━" in output
    assert all(text in output for text in shown)


def test_a_long_table_is_aligned_without_rich(tmp_path, put):
    for i in range(210):
        put(f"r{i:03}", created=1_700_000_000.0 + i)
    lines = on_a_terminal(tmp_path, "ls").splitlines()
    assert len(lines) == 211
    assert lines[1].startswith("r209    completed")


def test_ls_loads_nothing_heavy(cache):
    program = (
        "import sys\nfrom spt_registry.cli import cli\n"
        "try: cli(['ls'])\nexcept SystemExit: pass\n"
        "heavy = 'pandas pyarrow numpy rich loguru yaml torch lightning asyncio multiprocessing'\n"
        "print([name for name in heavy.split() if name in sys.modules], file=sys.stderr)"
    )
    env = {**os.environ, "SPT_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "alpha" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run, shell):
    assert "_SPT_REGISTRY_COMPLETE" in run("completion", shell).output


def test_the_shell_is_offered_ids_and_metrics(cache, monkeypatch):
    from click.shell_completion import ShellComplete

    CliRunner().invoke(cli, ["scan", "--cache-dir", str(cache)])
    monkeypatch.setenv("SPT_CACHE_DIR", str(cache))
    complete = ShellComplete(cli, {}, "spt-registry", "_SPT_REGISTRY_COMPLETE")

    def offered(*words):
        return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]

    assert offered("show", "al") == ["alpha"]
    assert offered("best", "") == ["acc", "loss"]
    assert "doctor" in offered("do")
    monkeypatch.setenv("SPT_CACHE_DIR", "/no/such/place")
    assert offered("show", "al") == []


def test_a_progress_bar_on_a_long_scan(monkeypatch, capsys):
    from spt_registry.cli._options import ProgressBar

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar() as bar:
        bar(1, 10)
        assert bar.bar is None  # too early
        bar.started -= 1
        bar(5, 10)
        assert bar.bar.pos == 5
        bar(10, 10)
    assert isinstance(bar.bar.length, int)
    assert click.progressbar is not None


def test_watch_shows_again(run, monkeypatch):
    from spt_registry.cli import listing

    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(listing.time, "sleep", wait)
    output = run("ls", "--watch", "0.5", "-n", "1", code=1).output
    assert waits == [0.5] * 3
    assert output.count("delta\tcompleted") == 3
