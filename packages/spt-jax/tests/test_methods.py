"""Every method trains for a few steps, moves what it should, and keeps one trace."""

import jax.numpy as jnp
import numpy as np
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax._compat import read
from spt_jax.methods.blocks import BlockSizes, draw_masks
from spt_jax.methods.dino import teacher_temperature

pytestmark = pytest.mark.slow


def rngs():
    return nnx.Rngs(0)


def mlp():
    return spj.backbone.MLP(48, (12, 8), rngs=rngs())


def vit(**settings):
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 8, "depth": 2, "num_heads": 2}
    return spj.backbone.ViT(rngs=rngs(), **{**sizes, **settings})


HEAD = {"projector_dims": (8, 4)}
METHODS = {
    "SimCLR": lambda **c: spj.SimCLR(mlp(), 8, rngs=rngs(), **HEAD, **c),
    "VICReg": lambda **c: spj.VICReg(mlp(), 8, rngs=rngs(), **HEAD, **c),
    "BarlowTwins": lambda **c: spj.BarlowTwins(mlp(), 8, rngs=rngs(), **HEAD, **c),
    "SimSiam": lambda **c: spj.SimSiam(mlp(), 8, rngs=rngs(), predictor_dim=4, **HEAD, **c),
    "BYOL": lambda **c: spj.BYOL(mlp(), 8, rngs=rngs(), predictor_hidden=8, **HEAD, **c),
    "MoCoV3": lambda **c: spj.MoCoV3(mlp(), 8, rngs=rngs(), predictor_hidden=8, **HEAD, **c),
    "NNCLR": lambda **c: spj.NNCLR(
        mlp(), 8, rngs=rngs(), predictor_hidden=8, queue_length=24, **HEAD, **c
    ),
    "SwAV": lambda **c: spj.SwAV(
        mlp(), 8, rngs=rngs(), n_prototypes=6, freeze_prototypes_steps=0, **HEAD, **c
    ),
    "DINO": lambda **c: spj.DINO(
        vit(pos_embed="learned"), 8, rngs=rngs(), n_prototypes=6, hidden=8, bottleneck=4, **c
    ),
    "LeJEPA": lambda **c: spj.LeJEPA(mlp(), 8, rngs=rngs(), n_slices=8, **HEAD, **c),
    "MAE": lambda **c: spj.MAE(
        vit(pos_embed="sincos"),
        rngs=rngs(),
        decoder_embed_dim=8,
        decoder_depth=1,
        decoder_num_heads=2,
        **c,
    ),
    "IJEPA": lambda **c: spj.IJEPA(
        vit(class_token=False, pos_embed="sincos"),
        rngs=rngs(),
        predictor_embed_dim=8,
        predictor_depth=1,
        predictor_num_heads=2,
        **c,
    ),
}
CROPS = {"DINO", "LeJEPA"}


def batches(name, number=2):
    """Views as a loader would give them; two large and two small crops for DINO."""
    rng = np.random.default_rng(0)

    def views(n, side):
        made = [rng.random((6, side, side, 3), dtype=np.float32) for _ in range(n)]
        return [{"image": image, "label": np.arange(6) % 2} for image in made]

    if name in ("MAE", "IJEPA"):
        return [views(1, 8)[0] for _ in range(number)]
    if name == "DINO":
        return [{"global_views": views(2, 8), "local_views": views(2, 4)} for _ in range(number)]
    return [{"views": views(2, 4)} for _ in range(number)]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_few_steps(name, small):
    module = METHODS[name](optim={"type": "adamw", "lr": 1e-2}, hparams={"mine": 1})
    assert module.settings.hparams["mine"] == 1
    before = dict(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    before = small.leaves(before)
    trainer = spj.Trainer(max_epochs=2, log_every_n_steps=1, progress=False)
    data = batches(name)
    trainer.fit(module, data)
    assert trainer.engine.traces["train"] == 1
    assert np.isfinite(trainer.callback_metrics["fit/loss"])
    after = small.leaves(dict(nnx.to_pure_dict(nnx.state(module, nnx.Param))))
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(moved), f"{moved.count(False)} of {len(moved)} weights did not move"
    image = data[0].get("image")
    image = (
        data[0].get("views", data[0].get("global_views"))[0]["image"] if image is None else image
    )
    (outputs,) = trainer.predict(module, [{"image": image, "label": np.arange(6)}])
    assert outputs["embedding"].shape == (6, 8)
    assert outputs["label"].tolist() == list(range(6))


def test_supervised_training_learns_and_counts_real_rows(small):
    encoder = spj.backbone.MLP(36, (16, 8), rngs=rngs())
    head = nnx.Linear(8, 2, rngs=rngs())
    optim = {"type": "adamw", "lr": 0.02}
    module = spj.Module(
        forward=spj.forward.supervised, backbone=encoder, classifier=head, optim=optim
    )
    trainer = spj.Trainer(max_epochs=8, progress=False)
    train, other = small.loaders()
    trainer.fit(module, train, other)
    assert trainer.callback_metrics["validate/loss"] < 0.3
    data = small.arrays(22, seed=1)
    outputs = trainer.predict(module, other)  # 22 rows in batches of 16
    logits = np.concatenate([part["logits"] for part in outputs])
    assert (logits.argmax(1) == data["label"]).mean() > 0.9
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_p[np.arange(22), data["label"]].mean()
    assert trainer.callback_metrics["validate/loss"] == pytest.approx(float(loss), rel=1e-4)
    (unlabelled,) = trainer.predict(module, [{"image": data["image"][:16]}])
    assert set(unlabelled) == {"embedding", "logits"}


@pytest.mark.parametrize("name", ["BYOL", "MoCoV3"])
def test_the_teacher_moves_by_the_cosine_of_the_step(name, small):
    module = METHODS[name](optim={"type": "sgd", "lr": 0.1}, base_ema=0.5)
    wrapper = module.projector
    teacher = np.array(read(wrapper.teacher.layers[0].kernel))
    trainer = spj.Trainer(max_epochs=1, log_every_n_steps=1, progress=False)

    class Follow(spj.Callback):
        def on_boundary(self, trainer, module):
            nonlocal teacher
            trainer.write_back(module)
            student = np.array(read(module.projector.student.layers[0].kernel))
            m = float(wrapper.ema_coefficient(trainer.global_step - 1, 3))
            teacher = m * teacher + (1 - m) * student

    trainer.callbacks = [Follow()]
    trainer.fit(module, batches(name, 3))
    np.testing.assert_allclose(
        read(module.projector.teacher.layers[0].kernel), teacher, rtol=1e-5, atol=1e-7
    )


def test_a_teacher_dropout_and_batchnorm_are_traced_once(small):
    """The coefficient comes from the traced step; modes are two fixed views of the module."""

    class Encoder(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(48, 8, rngs=rngs)
            self.norm = spj.backbone.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.2, rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(self.layer(x.reshape(len(x), -1))))

    module = spj.BYOL(Encoder(rngs()), 8, rngs=rngs(), predictor_hidden=8, optim="sgd", **HEAD)
    knn = spj.OnlineKNN(num_classes=2, k=3, bank_size=16)
    trainer = spj.Trainer(max_epochs=4, callbacks=[knn], progress=False)
    judged = [batches("MAE", 1)[0]]
    judged[0]["image"] = judged[0]["image"][:, :4, :4]
    trainer.fit(module, batches("BYOL"), judged)
    assert trainer.engine.traces == {"train": 1, "evaluate": 1}
    assert 0 <= trainer.callback_metrics["eval/knn_acc"] <= 1


def test_a_frozen_patch_projection_and_frozen_prototypes_stay(small):
    backbone = vit(pos_embed="sincos")
    kernel = np.array(read(backbone.patch_embed.kernel))
    module = spj.MoCoV3(backbone, 8, rngs=rngs(), predictor_hidden=8, optim="sgd", **HEAD)
    views = [{"views": [{"image": np.ones((4, 8, 8, 3), np.float32) * i} for i in (1, 2)]}]
    spj.Trainer(progress=False).fit(module, views)
    assert np.array_equal(read(module.backbone.student.patch_embed.kernel), kernel)
    swav = spj.SwAV(
        mlp(), 8, rngs=rngs(), n_prototypes=6, optim="sgd", freeze_prototypes_steps=1, **HEAD
    )
    prototypes = np.array(read(swav.prototypes.kernel))
    spj.Trainer(max_steps=1, progress=False).fit(swav, batches("SwAV"))
    assert np.array_equal(read(swav.prototypes.kernel), prototypes)


def test_the_support_set_takes_projections_in_after_the_loss():
    queue = spj.methods._method.FeatureQueue(5, 3, rngs=rngs())
    first = np.array(queue.content())
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    queue.push(jnp.asarray([[3.0, 0, 0], [0, 2.0, 0], [0, 0, 1.0]]), jnp.asarray([1.0, 0, 1.0]))
    found = np.array(queue.content())
    np.testing.assert_allclose(found[:2], [[1, 0, 0], [0, 0, 1]], atol=1e-6)
    assert np.array_equal(found[2:], first[2:])


def test_masks_of_ijepa_are_blocks_beside_their_context():
    import jax

    grid = (6, 7)
    sizes = BlockSizes(grid, (0.15, 0.2), (0.75, 1.5)), BlockSizes(grid, (0.85, 1.0), (1.0, 1.0))
    draw = jax.jit(lambda key: draw_masks(key, 3, *sizes, 4))
    for number in range(5):
        (keep, seen), (places, real) = jax.device_get(draw(jax.random.key(number)))
        assert places.shape == (3, 4, sizes[0].most())
        for image in range(3):
            context = set(keep[image][seen[image]].tolist())
            for block in range(4):
                cells = places[image, block][real[image, block]].tolist()
                rows, columns = {c // 7 for c in cells}, {c % 7 for c in cells}
                assert len(cells) == len(rows) * len(columns) > 0  # a rectangle
                assert max(rows) < 5  # the last row and column are never reached
                assert max(columns) < 6
                assert not context & set(cells)
        assert len({int(real[i, j].sum()) for i in range(3) for j in range(4)}) == 1


def test_the_teachers_temperature_warms_up():
    settings = {
        "temperature_teacher": 0.07,
        "temperature_teacher_warmup": 0.04,
        "warmup_steps_temperature_teacher": 4,
    }
    found = [float(teacher_temperature(step, settings)) for step in range(6)]
    np.testing.assert_allclose(found, [0.04, 0.05, 0.06, 0.07, 0.07, 0.07], rtol=1e-5)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="`mask_ratio` must be in"):
        spj.MAE(vit(), rngs=rngs(), mask_ratio=1.0)
    with pytest.raises(ValueError, match="`base_ema_coefficient` must be in"):
        spj.BYOL(mlp(), 8, rngs=rngs(), base_ema=1.5, **HEAD)
    with pytest.raises(ValueError, match="needs its length"):
        spj.TeacherStudentWrapper(mlp()).ema_coefficient(0, None)
    with pytest.raises(ValueError, match="DINO trains on at least 2 views, got 1"):
        spj.Trainer(progress=False).fit(METHODS["DINO"](), batches("MAE"))
