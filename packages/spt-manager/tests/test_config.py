"""Global settings: values, checks, and what they leave alone."""

import dataclasses
import inspect
import io
import os
import sys
from pathlib import Path

import pytest
import spt_manager
from loguru import logger
from spt_callbacks import CleanUpCallback
from spt_callbacks.factories import DEFAULTS
from spt_manager import _log_level, config, config_context, get_config
from spt_manager.config import from_environment

sys.path.insert(0, str(Path(__file__).parent))
from forked import Forked


@pytest.fixture(autouse=True)
def _untouched(monkeypatch):
    monkeypatch.delenv("SPT_CACHE_DIR", raising=False)
    with config_context():
        yield


def test_only_what_is_given_changes(tmp_path):
    spt_manager.set(cache_dir=str(tmp_path))
    spt_manager.set(requeue_checkpoint=False, default_loggers={"registry": False})
    settings = get_config()
    assert settings.cache_dir == str(tmp_path)
    assert settings.requeue_checkpoint is False
    assert settings.default_loggers == {"registry": False}
    assert all(settings.default_callbacks.values())
    spt_manager.set(cache_dir=None)
    assert get_config().cache_dir is None
    spt_manager.set(cache_dir=tmp_path)
    assert get_config().cache_dir == str(tmp_path)


def test_a_context_restores():
    before = get_config()
    with config_context(requeue_checkpoint_every_n_steps=7) as settings:
        assert settings.requeue_checkpoint_every_n_steps == 7
    assert get_config() is before


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"cache_dri": "x"}, ValueError, "Unknown setting 'cache_dri'. Did you mean 'cache_dir'?"),
        ({"cache_dir": "relative"}, ValueError, "must be absolute or begin with ~, got 'relative'"),
        ({"cache_dir": 3}, TypeError, "`cache_dir` must be a string or None, got int"),
        ({"requeue_checkpoint": 1}, TypeError, "`requeue_checkpoint` must be bool, got int"),
        ({"requeue_checkpoint_every_n_steps": -1}, ValueError, "must be >= 0, got -1"),
        ({"default_loggers": {"wandb": True}}, ValueError, r"has the keys \['wandb'\]; there are"),
        ({"default_callbacks": {"logging": "yes"}}, TypeError, "must be bool, got str"),
        ({"verbose": "LOUD"}, ValueError, "`verbose` must be one of .*got 'LOUD'"),
        ({"verbose": True}, TypeError, "`verbose` must be str or int, got bool"),
        ({"verbose": 25}, ValueError, "got 25"),
        ({"log_rank": -1}, ValueError, "`log_rank` must be >= 0, got -1"),
        ({"log_rank": True}, TypeError, "`log_rank` must be int, got bool"),
        ({"cleanup": {"everything": True}}, ValueError, r"`cleanup` has the keys"),
        ({"progress_bar": "tqdm"}, ValueError, "`progress_bar` must be one of"),
    ],
)
def test_mistakes_are_named_and_change_nothing(settings, kind, message):
    before = get_config()
    with pytest.raises(kind, match=message):
        spt_manager.set(**settings)
    assert get_config() is before


ENVIRONMENT = {
    "SPT_CACHE_DIR": "/some/where",
    "SPT_VERBOSE": "30",
    "SPT_LOG_RANK": "all",
    "SPT_REQUEUE_CHECKPOINT": "off",
    "SPT_REQUEUE_CHECKPOINT_EVERY_N_STEPS": "50",
    "SPT_DEFAULT_CALLBACKS": "env_dump=false,logging=no",
    "SPT_PROGRESS_BAR": "none",
    "PATH": "elsewhere",
    "SPT_EXCLUDE_BIAS_NORM": "",
}


def test_the_environment_gives_the_first_values():
    given = from_environment(ENVIRONMENT)
    switches = given.pop("default_callbacks")
    assert [name for name, on in switches.items() if not on] == ["logging", "env_dump"]
    assert given == {
        "cache_dir": "/some/where",
        "verbose": 30,
        "log_rank": "all",
        "requeue_checkpoint": False,
        "requeue_checkpoint_every_n_steps": 50,
        "progress_bar": "none",
    }


@pytest.mark.parametrize(
    ("variable", "text", "kind", "message"),
    [
        ("SPT_CACHE_DIR", "some/where", ValueError, "variable SPT_CACHE_DIR: `cache_dir` must be"),
        ("SPT_CACHE_DRI", "/x", ValueError, "SPT_CACHE_DRI: Unknown setting 'cache_dri'. Did you"),
        ("SPT_REQUEUE_CHECKPOINT", "maybe", TypeError, "SPT_REQUEUE_CHECKPOINT: .* must be bool"),
        ("SPT_CLEANUP", "logs", TypeError, "SPT_CLEANUP: `cleanup.'logs'.` must be bool"),
        ("SPT_PROGRESS_BAR", "fancy", ValueError, r"SPT_PROGRESS_BAR: .*\['auto', 'rich'"),
    ],
)
def test_a_bad_variable_is_named(variable, text, kind, message):
    with pytest.raises(kind, match=message):
        from_environment({variable: text})


def reads_its_environment_once():
    first = get_config().cache_dir
    os.environ["SPT_CACHE_DIR"] = "/other"
    print(first, get_config().cache_dir)


def test_the_process_reads_its_environment_once(tmp_path):
    environ = {**os.environ, "SPT_CACHE_DIR": "/some/where"}
    name = "reads_its_environment_once"
    process = Forked(tmp_path / "log", "test_config", name, environ=environ)
    assert process.end() == 0, process.output()
    assert process.output().strip() == "/some/where /some/where"


def test_the_names_are_those_of_the_factory():
    assert set(config.CALLBACKS) == {"progress_bar", *DEFAULTS}
    assert f"keep_{next(iter(config.KEPT))}" in inspect.signature(CleanUpCallback).parameters
    signature = inspect.signature(CleanUpCallback).parameters
    kept = {n[5:]: p.default for n, p in signature.items() if n.startswith("keep_")}
    assert kept == config.KEPT


def test_the_documentation_is_made_of_the_code():
    table = config.settings_table()
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert table in readme, f"README.md must hold this table:\n{table}"
    for entry in dataclasses.fields(config.Settings):
        assert f"| `{entry.name}` | `SPT_{entry.name.upper()}` |" in table


@pytest.fixture
def own_sinks():
    """This process's sinks stay as they are, whatever a test does with loguru's first one."""
    core = logger._core
    before = dict(core.handlers), core.min_level, _log_level._own
    shown = io.StringIO()
    yield shown
    core.handlers, core.min_level, _log_level._own = before


def test_the_level_and_the_rank_decide_what_is_shown(own_sinks, monkeypatch, capsys):
    logger.remove()
    user = logger.add(own_sinks, level="TRACE", format="{message}")
    monkeypatch.setattr(_log_level, "_own", logger.add(io.StringIO()))
    spt_manager.set(verbose="warning")
    logger.info("quiet")
    logger.warning("loud")
    monkeypatch.setenv("RANK", "1")
    logger.warning("of rank 1")
    spt_manager.set(log_rank="all")
    logger.warning("of all")
    shown = capsys.readouterr().err
    assert "loud" in shown
    assert "of all" in shown
    assert "quiet" not in shown
    assert "of rank 1" not in shown
    assert own_sinks.getvalue().split("\n")[:-1] == ["quiet", "loud", "of rank 1", "of all"]
    logger.remove(user)


def test_a_program_that_removed_the_sink_decides_for_itself(own_sinks, monkeypatch, capsys):
    logger.remove()
    monkeypatch.setattr(_log_level, "_own", None)
    spt_manager.set(verbose="TRACE")
    logger.error("nobody listens")
    assert capsys.readouterr().err == ""
