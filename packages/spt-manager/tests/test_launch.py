"""Training from YAML: single runs, sweeps, ranks, errors, and what is written down."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from spt_manager import BuildError, Manager, NotAllowedError, config_context
from spt_manager.allow import require_allowed
from spt_manager.check import check_config
from spt_manager.launch import ConfigError, run_config
from spt_manager.record import snapshot

sys.path.insert(0, str(Path(__file__).parent))
from forked import Forked

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*", "ignore:.*fast_dev_run.*")

HERE = Path(__file__).parent
CONFIG = """
width: 3
trainer: {_target_: lightning.Trainer, accelerator: cpu, max_epochs: 2, log_every_n_steps: 1,
          enable_progress_bar: false, enable_model_summary: false}
module: {_target_: managed_parts.Model, width: "${width}", api_key: "${oc.env:SOME_API_KEY,none}"}
data: {_target_: managed_parts.Data}
seed: 1
"""
QUIET = {"default_callbacks": {"env_dump": False, "trainer_info": False}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(tmp_path)
    with config_context(cache_dir=str(tmp_path / "cache"), **QUIET):
        yield tmp_path / "cache"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


def sidecars(cache):
    found = sorted((cache / "runs").rglob("sidecar.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text()) for path in found]


def test_a_yaml_runs_with_overrides_and_all_of_it_is_recorded(config, cache, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abc123")
    run_config(config, ["width=5", "trainer.max_epochs=1", "+note.empty={}"])
    (state,) = sidecars(cache)
    assert state["status"] == "completed"
    assert state["hparams"]["module.width"] == state["config"]["module"]["width"] == 5
    assert state["config"]["trainer"]["max_epochs"] == state["hparams"]["trainer.max_epochs"] == 1
    assert state["config"]["seed"] == state["hparams"]["seed"] == 1
    assert state["config"]["note"] == {"empty": {}}
    assert state["hparams"]["note.empty"] == {}
    everything = [p.read_text(errors="ignore") for p in cache.rglob("*") if p.is_file()]
    assert not any("abc123" in text for text in everything)


def test_callbacks_and_loggers_may_stand_at_the_top(config, cache):
    config.write_text(
        CONFIG
        + """
callbacks:
  - {_target_: lightning.pytorch.callbacks.ModelCheckpoint, filename: mine}
  - {_target_: managed_parts.Mark, _partial_: true, word: marked}
logger:
  - {_target_: spt_registry.RegistryLogger, tags: [a, b], notes: why}
settings: {requeue_checkpoint: false}
"""
    )
    run_config(config)
    (state,) = sidecars(cache)
    assert state["tags"] == ["a", "b", "marked"]
    assert state["notes"] == "why"
    assert state["config"]["callbacks"][1]["word"] == "marked"
    names = {path.name for path in (Path(state["run_dir"]) / "checkpoints").iterdir()}
    assert names == {"mine.ckpt"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("module._target_=managed_parts.Modell", r"`module` failed: .*managed_parts.Modell"),
        ("+module.widht=3", r"`module` failed: managed_parts.Model: TypeError.*widht"),
        (
            "+module.head={_target_: torch.nn.Linear, in_features: 3}",
            r"`module.head` failed: torch.nn.*out_features",
        ),
        (
            "+trainer.callbacks=[{_target_: managed_parts.Mark, wrong: 1}]",
            r"`trainer.callbacks.?0.?` failed: managed_parts.Mark: TypeError",
        ),
        ("trainer.accelerator=many", r"`trainer` failed: lightning.*Trainer: "),
        ("data._target_=nowhere.Data", r"`data` failed: .*nowhere"),
    ],
)
def test_a_failing_target_is_named_by_its_path(config, change, message):
    with pytest.raises((BuildError, TypeError), match=message):
        run_config(config, [change])


def test_a_mapping_in_python_fails_with_its_path_too():
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "logger": False}
    module = {"_target_": "managed_parts.Model", "width": 2, "head": {"_target_": "no.such"}}
    with pytest.raises(BuildError, match="`module.head` failed: .*no"):
        Manager(trainer, module, {"_target_": "managed_parts.Data"})()


def test_both_places_are_refused(config):
    config.write_text(CONFIG + "logger: []\n")
    with pytest.raises(ConfigError, match="`logger` stands both at the top and in `trainer`"):
        run_config(config, ["+trainer.logger=false"])


def test_a_configuration_without_its_parts_is_named(tmp_path):
    (tmp_path / "half.yaml").write_text("trainer: {}\n")
    with pytest.raises(ConfigError, match=r"lacks \['module', 'data'\]; it has \['trainer'\]"):
        run_config(tmp_path / "half.yaml")
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        run_config(tmp_path / "none.yaml")


def test_a_multirun_makes_one_run_per_value(config, cache):
    arguments = list(sys.argv)
    run_config(config, ["width=2,6"], multirun=True)
    assert [state["hparams"]["module.width"] for state in sidecars(cache)] == [2, 6]
    assert sys.argv == arguments


def test_a_list_is_no_sweep(config, cache):
    run_config(config, ["+note=[1,2]"])
    (state,) = sidecars(cache)
    assert state["config"]["note"] == [1, 2]


@pytest.mark.parametrize("multirun", [False, True])
def test_only_what_is_allowed_is_made(config, cache, multirun):
    run_config(config, allow=["lightning", "managed_parts"], multirun=multirun)
    assert len(sidecars(cache)) == 1
    with pytest.raises(NotAllowedError, match=r"`module._target_` is 'managed_parts.Model'; all"):
        run_config(config, allow=["lightning", "managed"], multirun=multirun)
    evil = "+module.head={_target_: os.system, command: 'touch evil'}"
    with pytest.raises(NotAllowedError, match="`module.head._target_` is 'os.system'"):
        run_config(config, [evil], allow=["lightning", "managed_parts"], multirun=multirun)
    config.write_text(CONFIG + "hydra: {launcher: {_target_: os.system}}\n")
    if multirun:
        with pytest.raises(NotAllowedError, match="`hydra.launcher._target_` is 'os.system'"):
            run_config(config, allow=["lightning", "managed_parts"], multirun=True)
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    "extra",
    [
        {"module": {"optim": "os.system"}},
        {"module": {"optim": {"optimizer": "os.system"}}},
        {"module": {"optim": {"optimizer": "SGD", "scheduler": "subprocess.Popen"}}},
        {"hydra": {"job_logging": {"handlers": {"x": {"()": "numpy.load"}}}}},
        {"hydra": {"job_logging": {"handlers": {"x": {"class": "numpy.load"}}}}},
        {"hydra": {"job_logging": {"handlers": {"x": {"()": "eval"}}}}},
    ],
)
def test_names_outside_of_a_target_are_bounded_too(extra):
    with pytest.raises(NotAllowedError, match="allowed is"):
        require_allowed(extra, ["torch"])


def test_names_of_known_things_are_no_paths():
    optim = {"optimizer": {"type": "AdamW"}, "scheduler": "CosineAnnealingLR"}
    require_allowed({"module": {"optim": optim, "class": "dog"}}, ["torch"])


def test_a_configuration_has_the_suffix_that_hydra_reads(config):
    other = config.with_suffix(".yml")
    other.write_text("module: {}")
    with pytest.raises(ConfigError, match="files that end in '.yaml', got .*yml"):
        run_config(other)


def test_a_configuration_for_devices_that_are_not_here_can_be_checked(config, cache):
    gpus = ["trainer.accelerator=cuda", "+trainer.devices=8", "+trainer.strategy=ddp"]
    assert dict(check_config(config, gpus))["module"].startswith("Model")


def test_a_check_shows_shapes_and_leaves_nothing(config, cache):
    found = dict(check_config(config, ["width=5"]))
    assert found["module"] == "Model, 25 parameters"
    assert found["batch.x"] == "float32 (4, 4)"
    assert found["step.embedding"] == "float32 (4, 5)"
    assert found["validation step.embedding"] == "float32 (4, 5)"
    assert dict(check_config(config, ["width=1000000"], meta=True))["module"].startswith(
        "Model, 5,0"
    )
    assert not cache.exists()
    with pytest.raises(BuildError, match="`module`"):
        check_config(config, ["+module.wrong=1"])


def test_secrets_are_masked():
    text = """
a: {api_key: k, hf_token: k, num_tokens: 7, tokenizer: bert, password: "", nested: [{secret: k}]}
b: "${oc.env:MY_SECRET,k}"
url: https://user:k@host/path
c: {x: "${oc.env:WANDB_API_KEY,k}", y: "${oc.env:HOME_OF_MINE,open}"}
"""
    found = snapshot(OmegaConf.create(text))
    masked = {"api_key": "***", "hf_token": "***", "nested": [{"secret": "***"}]}
    assert found["a"] == {"num_tokens": 7, "tokenizer": "bert", "password": "", **masked}
    assert found["url"] == "https://***@host/path"
    assert found["c"] == {"x": "***", "y": "open"}
    assert found["b"] == "***"


def run_script(*arguments):
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")


@pytest.mark.slow
@pytest.mark.distributed
def test_ranks_of_a_sweep_run_their_own_job(config, cache):
    script = config.with_name("start.py")
    script.write_text(
        "import sys\n"
        "from spt_manager import set as set_config\n"
        "from spt_manager.launch import ConfigError, run_config\n"
        f"set_config(cache_dir={str(cache)!r})\n"
        "sweep = '-m' in sys.argv\n"
        "run_config(sys.argv[1], [a for a in sys.argv[2:] if a != '-m'], multirun=sweep)\n"
    )
    two = ["+trainer.devices=2", "+trainer.strategy=ddp", "trainer.max_epochs=1"]
    arguments = (str(script), str(config), "-m", "width=2,6", *two)
    environ = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    done = Forked(
        script.with_suffix(".log"), "test_launch", "run_script", *arguments, environ=environ
    )
    assert done.end() == 0, done.output()[-3000:]
    found = sidecars(cache)
    assert [(s["hparams"]["module.width"], s["status"]) for s in found] == [
        (2, "completed"),
        (6, "completed"),
    ]
