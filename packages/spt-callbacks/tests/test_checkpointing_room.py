"""What callbacks put into checkpoints, how these load, and what is exported."""

import json
import subprocess
import sys
import textwrap

import lightning as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from spt_callbacks import (
    HuggingFaceCheckpointCallback,
    SklearnCheckpoint,
    StrictCheckpointCallback,
    SwanLabCheckpoint,
    TrackioCheckpoint,
    WandbCheckpoint,
)
from spt_callbacks.checkpointing.sklearn import KEY
from torch import nn
from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*dataloader.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic.*"),
]


class Plain(pl.LightningModule):
    def __init__(self, width=3, extra=False):
        super().__init__()
        self.encoder = nn.Linear(4, width)
        self.head = nn.Linear(width, 1)
        if extra:
            self.extra = nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.head(self.encoder(batch)).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def train(tmp_path, module, callbacks=(), ckpt_path=None, logger=False, max_epochs=1):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=max_epochs,
        callbacks=list(callbacks),
    )
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    trainer.fit(module, DataLoader(data, batch_size=4), ckpt_path=ckpt_path)
    return trainer


def test_estimators_travel_in_the_checkpoint(tmp_path):
    from sklearn.linear_model import LogisticRegression, Ridge

    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    module = Plain()
    module.classifier = LogisticRegression().fit(x, y)
    module.more = {"ridge": [Ridge().fit(x, y)]}
    trainer = train(tmp_path, module, [SklearnCheckpoint()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)[KEY]
    assert set(stored) == {"classifier", "more/ridge/0"}

    fresh = Plain()
    fresh.classifier = LogisticRegression()
    fresh.more = {"ridge": [Ridge()]}
    train(tmp_path, fresh, [SklearnCheckpoint()], ckpt_path=tmp_path / "a.ckpt")
    np.testing.assert_array_equal(
        fresh.classifier.predict_proba(x), module.classifier.predict_proba(x)
    )
    np.testing.assert_array_equal(fresh.more["ridge"][0].coef_, module.more["ridge"][0].coef_)
    train(tmp_path, Plain(), [], ckpt_path=tmp_path / "a.ckpt")  # and without the callback


def test_estimators_of_unknown_types_are_refused(tmp_path):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import FunctionTransformer
    from skops.io.exceptions import UntrustedTypesFoundException

    module = Plain()
    module.estimator = FunctionTransformer(func=subprocess.getoutput)
    trainer = train(tmp_path, module, [SklearnCheckpoint()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = Plain()
    fresh.estimator = Ridge()
    with pytest.raises(UntrustedTypesFoundException, match=r"subprocess\.getoutput"):
        train(tmp_path, fresh, [SklearnCheckpoint()], ckpt_path=tmp_path / "a.ckpt")
    trust = SklearnCheckpoint(trusted=["subprocess.getoutput"])
    train(tmp_path, fresh, [trust], ckpt_path=tmp_path / "a.ckpt")
    assert fresh.estimator.func is subprocess.getoutput


def test_a_module_without_estimators_adds_nothing(tmp_path):
    trainer = train(tmp_path, Plain(), [SklearnCheckpoint()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert KEY not in torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_the_wandb_run_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked = WandbLogger(project="demo", id="abc123", save_dir=tmp_path)
    trainer = train(tmp_path, Plain(), [WandbCheckpoint()], logger=tracked)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    tracked.experiment.finish()
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["wandb"]
    assert (saved["id"], saved["project"]) == ("abc123", "demo")
    assert json.loads((tmp_path / "wandb_resume.json").read_text()) == saved


class Recording(pl.pytorch.loggers.CSVLogger):
    """Has the identity of a Trackio run, as its logger has."""

    def __init__(self, root, name):
        super().__init__(root)
        self.run_name = name

    def resume_info(self):
        return {"project": "p", "name": self.run_name, "group": None}


class TrackioLogger(Recording):
    pass


class SwanLabLogger(Recording):
    pass


@pytest.mark.parametrize(
    ("callback", "kind"), [(TrackioCheckpoint, TrackioLogger), (SwanLabCheckpoint, SwanLabLogger)]
)
def test_other_trackers_are_remembered_and_compared(tmp_path, callback, kind, caplog):
    from loguru import logger

    trainer = train(tmp_path, Plain(), [callback()], logger=kind(tmp_path, "one"))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)[callback.tracker]
    assert saved == {"project": "p", "name": "one"}
    lines = []
    sink = logger.add(lines.append, level="INFO", format="{level} {message}")
    try:
        for name in ("one", "two"):
            other = kind(tmp_path, name)
            train(tmp_path, Plain(), [callback()], tmp_path / "a.ckpt", other)
    finally:
        logger.remove(sink)
    assert lines[0].startswith("INFO")
    assert "ERROR" in lines[1]
    assert "name 'one', now 'two'" in lines[1]


def test_two_loggers_of_one_kind_are_refused(tmp_path):
    loggers = [TrackioLogger(tmp_path, "a"), TrackioLogger(tmp_path, "b")]
    with pytest.raises(RuntimeError, match=r"TrackioCheckpoint keeps one identity, got 2 loggers"):
        train(tmp_path, Plain(), [TrackioCheckpoint()], logger=loggers)


@pytest.fixture
def checkpoint(tmp_path):
    trainer = train(tmp_path, Plain(width=3, extra=True))
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"


def test_a_checkpoint_that_fits_in_part_is_loaded_in_part(tmp_path, checkpoint):
    module = Plain(width=3)
    module.more = nn.Linear(1, 1)
    module.head = nn.Linear(3, 2)
    head = module.head.weight.detach().clone()
    lenient = StrictCheckpointCallback(strict=False)
    values = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            values.update({k: v.clone() for k, v in pl_module.state_dict().items()})
            values["moments"] = dict(trainer.optimizers[0].state)
            values["lr"] = trainer.optimizers[0].param_groups[0]["lr"]

    train(tmp_path, module, [lenient, Look()], ckpt_path=checkpoint, max_epochs=2)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(values["encoder.weight"], saved["encoder.weight"])
    assert torch.equal(values["head.weight"], head)
    assert lenient.report.loaded == ["encoder.weight", "encoder.bias"]
    assert lenient.report.missing == ["more.weight", "more.bias"]
    assert lenient.report.unexpected == ["extra.weight", "extra.bias"]
    assert lenient.report.mis_shaped["head.weight"] == ((1, 3), (2, 3))
    assert "loaded 2 of 6 tensors" in str(lenient.report)
    assert values["moments"] == {}
    assert values["lr"] == pytest.approx(0.05)  # the rate goes on where it was


def test_a_checkpoint_that_fits_keeps_its_moments(tmp_path, checkpoint):
    lenient = StrictCheckpointCallback(strict=False)
    module = Plain(width=3, extra=True)
    trainer = train(tmp_path, module, [lenient], ckpt_path=checkpoint, max_epochs=2)
    assert lenient.report.complete
    assert trainer.optimizers[0].state[module.head.bias]["step"] == 4
    assert not module._load_state_dict_pre_hooks


def test_strict_loading_still_raises(tmp_path, checkpoint):
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict"):
        train(tmp_path, Plain(), [StrictCheckpointCallback()], ckpt_path=checkpoint)


OWN_MODEL = """
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class TinyConfig(PretrainedConfig):
    model_type = "tiny-of-our-own"

    def __init__(self, width=4, **kwargs):
        self.width = width
        super().__init__(**kwargs)


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Linear(4, config.width)
        self.post_init()

    def forward(self, x):
        return self.layer(x)
"""


def test_an_export_reloads_where_our_package_is_not(tmp_path, monkeypatch):
    (tmp_path / "tiny_model.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    import tiny_model

    class Hugging(Plain):
        def __init__(self):
            super().__init__()
            self.encoder = tiny_model.TinyModel(tiny_model.TinyConfig(width=3))

    module = Hugging()
    callback = HuggingFaceCheckpointCallback(raise_on_error=True)
    trainer = train(tmp_path, module, [callback])
    for name in ("a.ckpt", "b.ckpt"):  # the second export replaces the first
        trainer.save_checkpoint(tmp_path / name)
    target = tmp_path / "hf_exports" / "last" / "encoder"
    assert [p.name for p in target.parent.iterdir()] == ["encoder"]
    assert tiny_model.TinyModel._auto_class is None
    program = textwrap.dedent("""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("spt_callbacks", "lightning", "tiny_model"):
                    raise ImportError(name)
        sys.meta_path.insert(0, Blocked())
        import torch
        from transformers import AutoModel
        model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
        print("VALUE", model(torch.ones(1, 4)).sum().item())
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(target)],
        capture_output=True,
        text=True,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, done.stderr
    printed = float(done.stdout.split("VALUE")[1])
    assert printed == pytest.approx(module.encoder(torch.ones(1, 4)).sum().item(), abs=1e-5)


def test_a_module_without_such_models_leaves_no_trace(tmp_path):
    trainer = train(tmp_path, Plain(), [HuggingFaceCheckpointCallback()])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "hf_exports").exists()
