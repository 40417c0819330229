"""Global settings: values, checks, and what they leave alone."""

import subprocess
import sys

import pytest
import spt_manager
from spt_manager import config_context, get_config


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
    assert settings.default_callbacks == {"logging": True}
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
    ],
)
def test_mistakes_are_named_and_change_nothing(settings, kind, message):
    before = get_config()
    with pytest.raises(kind, match=message):
        spt_manager.set(**settings)
    assert get_config() is before


def test_the_environment_gives_the_first_value_and_is_checked():
    program = "from spt_manager import get_config; print(get_config().cache_dir)"

    def run(value):
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**__import__("os").environ, "SPT_CACHE_DIR": value},
            capture_output=True,
            text=True,
        )

    assert run("/some/where").stdout.strip() == "/some/where"
    wrong = run("some/where")
    assert wrong.returncode == 1
    assert "SPT_CACHE_DIR" in wrong.stderr
