"""The `spt` command."""

from click.testing import CliRunner
from stable_pretraining import __version__
from stable_pretraining.cli import main


def invoke(*args):
    return CliRunner().invoke(main, list(args))


def test_version_and_help():
    assert __version__ in invoke("--version").output
    result = invoke("--help")
    assert result.exit_code == 0
    for command in ("demo", "registry", "run"):
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
