"""The namespace: every name resolves to the package that owns it."""

import importlib
import subprocess
import sys

import pytest
import stable_pretraining as spt
from stable_pretraining._lazy import load, mirror

ROOMS = {
    "augment": "spt_augment",
    "backbone": "spt_methods.backbones",
    "callbacks": "spt_callbacks",
    "data": "spt_data",
    "forward": "spt_methods.forward",
    "losses": "spt_losses",
    "methods": "spt_methods.methods",
    "optim": "spt_optim",
    "registry": "spt_registry",
}


@pytest.mark.parametrize(("room", "home"), ROOMS.items())
def test_a_room_presents_its_package(room, home):
    presented, package = getattr(spt, room), importlib.import_module(home)
    names = [name for name in dir(package) if not name.startswith("_")]
    assert names
    for name in names:
        assert getattr(presented, name) is getattr(package, name)
    assert set(names) <= set(dir(presented))


def test_every_top_level_name_resolves():
    for name in dir(spt):
        if name != "jax":
            assert getattr(spt, name) is not None


def test_gpu_transforms_stand_in_the_data_room():
    import spt_augment
    from stable_pretraining.data import gpu_transforms, transforms

    assert gpu_transforms is spt_augment
    assert transforms.Compose


def test_the_jax_room_needs_its_extra_only_when_used():
    pytest.importorskip("spt_jax")
    import spt_jax

    assert spt.jax.Trainer is spt_jax.Trainer


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'stable_pretraining' has no attribute 'Modul'"):
        _ = spt.Modul
    with pytest.raises(AttributeError, match=r"'stable_pretraining.losses' has no attribute 'NT'"):
        _ = spt.losses.NT


def test_a_missing_extra_is_named():
    with pytest.raises(ModuleNotFoundError, match=r'pip install "stable-pretraining\[jax\]"'):
        load("spt_not_there", extra="jax")


def test_an_error_inside_a_package_is_not_mistaken_for_a_missing_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_room.py").write_text("import spt_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    getattribute, _ = mirror("room", "broken_room", extra="jax")
    with pytest.raises(ModuleNotFoundError, match="spt_missing_dependency"):
        getattribute("anything")


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("data.transforms", "ToImage", "spt_data.transforms"),
        ("data.gpu_transforms", "GPUCompose", "spt_augment"),
        ("data.utils", "get_num_workers", "spt_data.utils"),
        ("data.masking", "multi_block_mask", "spt_data.masking"),
        ("callbacks.utils", "TrainableCallback", "spt_callbacks.utils"),
        ("callbacks.queue", "find_or_create_queue_callback", "spt_callbacks"),
        ("callbacks.hp_metric", "HPMetricLogger", "spt_callbacks"),
        ("callbacks.registry", "log_dict", "spt_callbacks"),
        ("backbone.pos_embed", "get_sincos_pos_embed", "spt_methods.backbones.pos_embed"),
        ("backbone.video", "PredRNNv2", "spt_methods.backbones.video"),
    ],
)
def test_rooms_can_be_imported_from_as_if_they_were_folders(module, name, home):
    line = f"from stable_pretraining.{module} import {name}"
    names: dict = {}
    exec(line, names)
    assert names[name] is getattr(importlib.import_module(home), name)
    with pytest.raises(ImportError, match="NotThere"):
        exec(f"from stable_pretraining.{module} import NotThere", names)


def test_offered_rooms_import_nothing_until_they_are_used():
    program = (
        "import sys, stable_pretraining.data.transforms, stable_pretraining.callbacks.utils; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
