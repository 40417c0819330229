"""The `spt` command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from stable_pretraining import __version__
from stable_pretraining.cli import main


def invoke(*args):
    return CliRunner().invoke(main, list(args))


def test_version_and_help():
    assert __version__ in invoke("--version").output
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("completion", "config", "demo", "methods", "registry", "run"):
        assert command in result.output


def test_the_registry_is_the_same_group_as_its_own_command():
    from spt_registry.cli import cli

    assert main.get_command(None, "registry") is cli
    assert "ls" in invoke("registry", "--help").output


def test_a_yaml_file_stands_for_the_run_command():
    result = invoke("missing.yaml", "trainer.max_epochs=1")
    assert result.exit_code == 1
    assert "There is no configuration file 'missing.yaml'" in result.output


def test_an_unknown_command_is_a_usage_error():
    result = invoke("dmeo")
    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.output


def test_a_bad_epoch_count_is_refused():
    result = invoke("demo", "--epochs", "0")
    assert result.exit_code == 2
    assert "--epochs" in result.output


def test_the_methods_are_the_tables_rows():
    from spt_methods.catalogue import CATALOGUE

    result = invoke("methods")
    assert result.exit_code == 0
    assert all(f"`{row.method}`" in result.output for row in CATALOGUE)


def test_the_settings_are_those_of_the_code():
    result = invoke("config", "settings")
    assert "| `cache_dir` | `SPT_CACHE_DIR` | `None` |" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes(shell):
    script = invoke("completion", shell)
    assert script.exit_code == 0
    assert "_SPT_COMPLETE" in script.output
    words = {"COMP_WORDS": "spt reg", "COMP_CWORD": "1", "_SPT_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(main, [], env=words, prog_name="spt")
    assert "registry" in result.output


CONFIG = """
trainer: {_target_: lightning.Trainer, accelerator: cpu}
module: {_target_: torch.nn.Linear, in_features: 1, out_features: 1}
data: {_target_: lightning.LightningDataModule}
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+module.wrong=1"], "`module` failed: torch.nn"),
        (["~data"], "The configuration lacks ['data']"),
        (["no.such=1"], "Could not override 'no.such'"),
        (["--allow", "lightning"], "`module._target_` is 'torch.nn.Linear'; allowed is"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["config", "check"]])
def test_a_mistake_in_a_configuration_is_told_without_a_traceback(
    tmp_path, command, arguments, message
):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    result = invoke(*command, str(path), *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


BORING = """
trainer: {_target_: lightning.Trainer, accelerator: cpu, max_epochs: 1, num_sanity_val_steps: 0}
module: {_target_: lightning.pytorch.demos.boring_classes.BoringModel}
data: {_target_: lightning.pytorch.demos.boring_classes.BoringDataModule}
"""


def holds(pid, number):
    blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(blocked, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's signal mask")
def test_a_warning_while_torch_is_imported_stops_the_run_after_its_first_batch(tmp_path):
    (tmp_path / "config.yaml").write_text(BORING)
    command = [str(Path(sys.executable).with_name("spt")), "config.yaml"]
    environ = {**os.environ, "SPT_CACHE_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE) as started:
        while started.poll() is None and not holds(started.pid, signal.SIGUSR1):
            time.sleep(0.01)
        os.kill(started.pid, signal.SIGUSR1)
        _, said = started.communicate(timeout=120)
    assert started.returncode == 75, said.decode()[-3000:]
    (sidecar,) = (tmp_path / "cache").rglob("sidecar.json")
    state = json.loads(sidecar.read_text())
    assert state["status"] == "preempted"
    assert (sidecar.parent / "checkpoints" / "last.ckpt").exists()
