"""Losses, optimizers, norms, networks, teachers, measures and augmentation against stored torch results."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import spt_jax as spj
from flax import nnx
from spt_jax import losses
from spt_jax._compat import merge, read, write
from spt_jax.augment import color
from spt_jax.backbone.convert import as_flax, torch_name
from spt_jax.callbacks import knn_predict, lidar, rankme

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "fixtures"
spec = importlib.util.spec_from_file_location("seeded", FOLDER / "seeded.py")
seeded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(seeded)
drawn, uniform = seeded.drawn, seeded.uniform


def stored(subject):
    return np.load(FOLDER / f"{subject}.npz")


Z = [drawn(f"z{i}", (6, 5)) for i in range(4)]
INDEX = jnp.asarray([2, 0, 5, 1, 3, 4])
DROP = uniform("drop", (6, 6)) > 0.6
CROPS, TEACHER = drawn("student", (3, 6, 7)), jax.nn.softmax(drawn("teacher", (2, 6, 7)))
PROTOTYPES, DIRECTIONS = drawn("prototypes", (7, 5)), drawn("directions", (5, 11))
TARGET, PRED = drawn("target", (2, 4, 12)), drawn("pred", (2, 4, 12))
MASK = jnp.asarray([[1.0, 0, 1, 1], [0, 0, 1, 0]])
QUEUE, VIEWS = drawn("queue", (9, 5)), drawn("views", (3, 6, 5))
LOSSES = {
    "ntxent": (lambda z: losses.ntxent_loss(z, Z[1], temperature=0.3), Z[0]),
    "info_nce": (
        lambda z: losses.info_nce_loss(z, Z[1], INDEX, mask=DROP, temperature=0.2),
        Z[0],
    ),
    "info_nce_scale": (lambda z: losses.info_nce_loss(z, Z[1], INDEX, logit_scale=3.0), Z[0]),
    "byol": (lambda z: losses.byol_loss(z, Z[1]), Z[0]),
    "negative_cosine": (lambda z: losses.negative_cosine(z, Z[1]), Z[0]),
    "simsiam": (lambda z: losses.simsiam_loss(z, *Z[1:]), Z[0]),
    "vicreg": (lambda z: losses.vicreg_loss(z, Z[1]), Z[0]),
    "barlow_twins": (lambda z: losses.barlow_twins_loss(z, Z[1], lambd=0.02), Z[0]),
    "moco_v3": (lambda z: losses.moco_v3_loss(z, *Z[1:]), Z[0]),
    "nnclr": (lambda z: losses.nnclr_loss(Z[0], Z[1], z, Z[3]), Z[2]),
    "swav": (lambda c: losses.swav_loss(Z[:3], c), PROTOTYPES),
    "swav_queue": (lambda z: losses.swav_loss([z, Z[1]], PROTOTYPES, queue=QUEUE), Z[0]),
    "dino": (lambda s: losses.dino_loss(s, TEACHER), CROPS),
    "mae": (lambda p: losses.mae_loss(TARGET, p, MASK), PRED),
    "mae_norm": (lambda p: losses.mae_loss(TARGET, p, MASK, norm_pix_loss=True), PRED),
    "sigreg": (lambda z: losses.sigreg_loss(z, DIRECTIONS), Z[0]),
    "lejepa": (lambda v: losses.lejepa_loss(v, DIRECTIONS, lamb=0.1, n_global=2), VIEWS),
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_and_their_gradients(name):
    loss, leaf = LOSSES[name]
    value, grad = jax.value_and_grad(loss)(jnp.asarray(leaf))
    expected = stored("losses")
    np.testing.assert_allclose(value, expected[name], rtol=2e-5)
    np.testing.assert_allclose(grad, expected[f"{name}.grad"], rtol=1e-3, atol=2e-6)


def test_sinkhorn():
    found = losses.sinkhorn(drawn("scores", (6, 7)), 0.05)
    np.testing.assert_allclose(found, stored("losses")["sinkhorn"], rtol=1e-4, atol=1e-6)


OPTIMIZERS = {
    "lars": {"type": "LARS", "lr": 0.5, "weight_decay": 0.01},
    "lars_nesterov": {"type": "LARS", "lr": 0.5, "nesterov": True, "clip_lr": True},
    "adamw": {"type": "AdamW", "lr": 0.05, "weight_decay": 0.1},
    "adamw_default": {"type": "AdamW", "lr": 0.05},
    "adam": {"type": "Adam", "lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.95)},
    "sgd": {"type": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers_over_twenty_steps(name):
    spec = {"optimizer": OPTIMIZERS[name], "scheduler": "LinearWarmupCosineAnnealing"}
    tx = spj.create_optimizer(spec, total_steps=20)
    params = {
        "kernel": jnp.asarray(drawn("weight", (4, 3))),
        "bias": jnp.asarray(drawn("bias", (3,))),
    }
    grads = {
        "kernel": np.stack([drawn(f"gw{step}", (4, 3)) for step in range(20)]),
        "bias": np.stack([drawn(f"gb{step}", (3,)) for step in range(20)]),
    }

    def step(carry, grad):
        params, state = carry
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.concatenate([params["kernel"].ravel(), params["bias"]])

    _, path = jax.lax.scan(step, (params, tx.init(params)), grads)
    np.testing.assert_allclose(path, stored("optim")[name], rtol=1e-4, atol=1e-5)


SCHEDULES = {
    "cosine": {"type": "CosineAnnealingLR", "eta_min": 0.01},
    "step": {"type": "StepLR", "step_size": 7},
    "multi": {"type": "MultiStepLR", "milestones": [3, 9], "gamma": 0.5},
    "exponential": {"type": "ExponentialLR"},
    "linear": {"type": "LinearLR", "total_iters": 8},
    "constant": {"type": "ConstantLR", "total_iters": 4},
    "warmup": {"type": "LinearWarmup", "peak_step": 5},
    "warmup_cosine": {"type": "LinearWarmupCosineAnnealing", "peak_step": 0.2, "end_lr": 0.02},
    "warmup_cyclic": {"type": "LinearWarmupCyclicAnnealing"},
    "warmup_steps": {"type": "LinearWarmupThreeStepsAnnealing"},
    "warmup_cosine_lr": {
        "type": "LinearWarmupCosineAnnealingLR",
        "warmup_steps": 6,
        "eta_min": 0.1,
    },
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules(name):
    schedule = spj.optim.create_schedule(SCHEDULES[name], 0.3, 40)
    rates = [float(schedule(step)) for step in range(41)]
    np.testing.assert_allclose(rates, stored("optim")[f"schedule.{name}"], rtol=1e-5, atol=1e-8)


def test_convolution_and_batchnorm():
    expected = stored("norm")
    conv = spj.backbone.layers.convolution(3, 4, 3, 2, rngs=nnx.Rngs(0))
    net = nnx.Sequential(conv, spj.backbone.BatchNorm(4, rngs=nnx.Rngs(0)))
    shapes = {"0.weight": (4, 3, 3, 3), "1.weight": (4,), "1.bias": (4,)}
    state = seeded.weights(
        {**shapes, "1.running_mean": (4,), "1.running_var": (4,), "1.num_batches_tracked": ()}
    )
    net.torch_names = lambda: {"layers.0": "0", "layers.1": "1"}
    spj.from_torch(net, state)
    for step in range(3):
        x = uniform(f"batch{step}", (5, 8, 8, 3))
        y = net(x)
        np.testing.assert_allclose(y, expected[f"train{step}"], rtol=1e-4, atol=1e-5)
        parts = nnx.split(net)
        grad = jax.grad(lambda x, parts=parts: (merge(*parts)(x) ** 3).sum())(x)
        np.testing.assert_allclose(grad, expected[f"train{step}.grad"], rtol=1e-3, atol=2e-3)
    norm = net.layers[1]
    np.testing.assert_allclose(read(norm.mean), expected["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read(norm.var), expected["var"], rtol=1e-5)
    net.eval()
    y = net(uniform("batch3", (5, 8, 8, 3)))
    np.testing.assert_allclose(y, expected["eval"], rtol=1e-4, atol=1e-5)


VIT = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
NETWORKS = {
    "resnet18": (lambda rngs: spj.backbone.resnet18(rngs=rngs), 32),
    "vit": (lambda rngs: spj.backbone.ViT(rngs=rngs, **VIT), 8),
    "vit_reg": (
        lambda rngs: spj.backbone.ViT(rngs=rngs, num_registers=2, qk_norm=True, **VIT),
        8,
    ),
}


def torch_shapes(model):
    """Names and shapes of the torch model that ours stands for."""
    names, shapes = model.torch_names(), {}
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, (nnx.Param, nnx.BatchStat)):
            shape = list(read(variable).shape)
            if path[-1] == "kernel":
                shape = shape[::-1] if len(shape) == 2 else [shape[i] for i in (3, 2, 0, 1)]
            shapes[torch_name([str(part) for part in path], names)] = tuple(shape)
    return shapes


def loaded(build):
    model = build(nnx.Rngs(0))
    shapes = torch_shapes(model)
    state = seeded.weights(shapes)
    return spj.from_torch(model, state)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_forward_gradients_and_statistics(name):
    build, side = NETWORKS[name]
    expected = stored("networks")
    model = loaded(build)
    x = uniform(name, (4, side, side, 3))
    model.eval()
    graph, state = nnx.split(model)
    y = jax.jit(lambda state, x: merge(graph, state)(x))(state, x)
    np.testing.assert_allclose(y, expected[f"{name}.eval"], rtol=2e-3, atol=2e-4)
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    head = drawn(f"{name}.head", y.shape)

    @jax.jit
    def gradients(params, rest, x):
        def loss_of(params, x):
            net = merge(graph, params, rest)
            out = net(x)
            return (out * head).sum(), (out, nnx.split(net, nnx.Param, ...)[2])

        return jax.grad(loss_of, argnums=(0, 1), has_aux=True)(params, x)

    (by_weight, by_image), (out, moved) = gradients(params, rest, x)
    scale = np.abs(expected[f"{name}.train"]).max()
    np.testing.assert_allclose(out, expected[f"{name}.train"], atol=2e-3 * scale)
    largest = np.abs(expected[f"{name}.grad"]).max()
    np.testing.assert_allclose(by_image, expected[f"{name}.grad"], atol=1e-2 * largest)
    names = model.torch_names()
    for part, kind in ((by_weight, "norm"), (moved, "stat")):
        for path, leaf in nnx.to_flat_state(part):
            value = leaf if isinstance(leaf, jax.Array) else read(leaf)
            key = torch_name([str(p) for p in path], names)
            found = float(jnp.linalg.norm(value.ravel()))
            assert found == pytest.approx(
                float(expected[f"{name}.{kind}.{key}"]), rel=2e-2, abs=1e-3
            )


def test_bottlenecks_forward():
    block = spj.backbone.Bottleneck
    model = loaded(lambda rngs: spj.backbone.ResNet(block, (1, 1, 1, 1), rngs=rngs))
    model.eval()
    graph, state = nnx.split(model)
    y = jax.jit(lambda state, x: merge(graph, state)(x))(
        state, uniform("bottleneck", (4, 32, 32, 3))
    )
    np.testing.assert_allclose(y, stored("networks")["bottleneck.eval"], rtol=2e-3, atol=1e-3)


def test_weights_that_do_not_fit_are_named():
    model = spj.backbone.ViT(rngs=nnx.Rngs(0), **VIT)
    state = seeded.weights(torch_shapes(model))
    with pytest.raises(ValueError, match=r"has no 'cls_token' for 'cls_token'"):
        spj.from_torch(model, {k: v for k, v in state.items() if k != "cls_token"})
    with pytest.raises(ValueError, match=r"'norm.bias' has shape \(3,\), which does not fit"):
        spj.from_torch(model, {**state, "norm.bias": np.zeros(3)})
    with pytest.raises(ValueError, match=r"belong to nothing here: \['neck.weight'\]"):
        spj.from_torch(model, {**state, "neck.weight": np.zeros(3)})
    spj.from_torch(model, {**state, "head.weight": np.zeros(3)})  # a classifier is left out
    with pytest.raises(TypeError, match="knows ResNet and ViT, got Linear"):
        spj.from_torch(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {})
    assert as_flax(np.zeros((4, 3, 2, 2)), "kernel").shape == (2, 2, 3, 4)


def test_a_teacher_follows_its_student():
    layer = nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0))
    write(layer.kernel, drawn("student0", (2, 3)).T)
    pair = spj.TeacherStudentWrapper(layer, 0.9, 1.0)
    path = []
    for step in range(10):
        write(pair.student.kernel, drawn(f"student{step}", (2, 3)).T)
        pair.update_teacher(pair.ema_coefficient(step, 10))
        path.append(read(pair.teacher.kernel).T)
    np.testing.assert_allclose(path, stored("teacher")["path"], rtol=1e-5, atol=1e-6)


def test_knn_rankme_and_lidar():
    expected = stored("evaluation")
    bank, queries = drawn("bank", (30, 6)), drawn("queries", (9, 6))
    for metric in ("cosine", "euclidean"):
        for chunk in (None, 4):
            scores = knn_predict(
                bank,
                np.arange(30) % 4,
                queries,
                num_classes=4,
                k=7,
                metric=metric,
                chunk_size=chunk,
            )
            np.testing.assert_allclose(scores, expected[f"knn.{metric}"], rtol=1e-4, atol=1e-6)
    assert rankme(bank) == pytest.approx(float(expected["rankme"]), rel=1e-9)
    assert lidar(bank, np.arange(30) // 3) == pytest.approx(float(expected["lidar"]), rel=1e-9)


FACTORS, SHIFTS = np.asarray([0.3, 0.9, 1.0, 1.7]), np.asarray([-0.5, -0.1, 0.0, 0.3])
BOXES = np.asarray([[0, 0, 12, 10], [2, 1, 5, 7], [3, 0, 9, 4], [6, 6, 4, 4]])
AUGMENTED = {
    "brightness": lambda x: color.adjust_brightness(x, FACTORS),
    "contrast": lambda x: color.adjust_contrast(x, FACTORS),
    "saturation": lambda x: color.adjust_saturation(x, FACTORS),
    "hue": lambda x: color.adjust_hue(x, SHIFTS),
    "solarize": color.solarize,
    "grey": color.rgb_to_grayscale,
    "flip": spj.augment.hflip,
    "normalize": color.normalize,
    "crop_small": lambda x: spj.augment.crop_resize(x, BOXES, 5),
    "crop_large": lambda x: spj.augment.crop_resize(x, BOXES, (16, 14)),
    "blur": lambda x: spj.augment.gaussian_blur(x, jnp.asarray([0.1, 0.7, 1.3, 2.0]), 7),
}


@pytest.mark.parametrize("name", sorted(AUGMENTED))
def test_augmentation_with_given_parameters(name):
    found = AUGMENTED[name](jnp.asarray(uniform("colour", (4, 12, 10, 3))))
    np.testing.assert_allclose(found, stored("augment")[name], atol=3e-5 if name == "hue" else 5e-6)
