"""Eight virtual CPU devices, quick compilation and a cache of it, before a backend exists; small nets."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

collect_ignore_glob = ["program.py", "fixtures/*"]  # programs, not modules with examples
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(f for f in FLAGS if f.split("=")[0] not in given)])
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": os.path.join(tempfile.gettempdir(), "spt-jax-compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in CACHE.items():
    os.environ.setdefault(name, value)
if "jax" in sys.modules:  # imported by another test: the environment was read then
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def arrays(n=40, seed=0):
    """Images 6x6 of two classes: bright above, bright below."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, 6, 6, 1), dtype=np.float32) * 0.3
    labels = np.arange(n) % 2
    images[labels == 0, :3] += 0.7
    images[labels == 1, 3:] += 0.7
    return {"image": images, "label": labels}


def encoder(**settings):
    """Images 6x6x1 to 8 features, with BatchNorm."""
    import spt_jax as spj
    from flax import nnx

    block = spj.backbone.BasicBlock
    settings = {"widths": (4, 8), "in_channels": 1, "low_resolution": True, **settings}
    return spj.backbone.ResNet(block, (1, 1), rngs=nnx.Rngs(0), **settings)


def simclr(transform=True, **settings):
    """SimCLR on the encoder."""
    import spt_jax as spj
    from flax import nnx

    view = spj.augment.Recipe(6, (0.8, 1.0), jitter_p=0.0, gray=0.0, mean=None)
    made = spj.augment.multi_view_transform([view, view]) if transform else None
    optim = {"optimizer": {"type": "adamw", "lr": 1e-2}, "scheduler": "CosineAnnealingLR"}
    return spj.SimCLR(
        encoder(),
        embed_dim=8,
        rngs=nnx.Rngs(0),
        projector_dims=(8, 4),
        **{"optim": optim, "transform": made, **settings},
    )


def callbacks():
    """One of each kind of live evaluation."""
    import spt_jax as spj
    from flax import nnx

    return [
        spj.OnlineProbe("probe", nnx.Linear(8, 2, rngs=nnx.Rngs(1)), optim={"lr": 0.05}),
        spj.OnlineKNN(num_classes=2, k=5, bank_size=50),
        spj.RankMe(queue_length=30),
        spj.LiDAR(queue_length=30),
    ]


def loaders():
    """40 rows to train on, 22 to validate on, in batches of 16."""
    import spt_jax as spj

    train = spj.ArrayLoader(arrays(), 16, shuffle=True)
    return train, spj.ArrayLoader(arrays(22, seed=1), 16)


def linear(optim="sgd", forward=None, **settings):
    """A linear layer on flattened images, its loss weighted by rows."""
    import jax.numpy as jnp
    import spt_jax as spj
    from flax import nnx

    def squares(self, batch, stage):
        embedding = self.layer(batch["image"].reshape(len(batch["image"]), -1))
        rows = (embedding**2).mean(1)
        weight = batch["sample_weight"]
        loss = (rows * weight).sum() / jnp.maximum(weight.sum(), 1)
        return {"embedding": embedding, "label": batch["label"], "loss": loss}

    layer = nnx.Linear(36, 4, rngs=nnx.Rngs(0))
    return spj.Module(forward=forward or squares, layer=layer, optim=optim, **settings)


def leaves(tree):
    """All arrays of a module, or of a state, on the host; random keys as numbers."""
    import jax
    from flax import nnx
    from spt_jax.flat_state import flat

    state = nnx.state(tree) if isinstance(tree, nnx.Module) else tree
    return [np.asarray(leaf) for leaf in jax.tree.leaves(flat(state))]


def same(a, b):
    """Whether two modules or states are equal to the bit."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """What a file compiled takes gigabytes in the end; the next one finds it on the disk."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def small():
    """The helpers of this file."""
    helpers = (arrays, encoder, simclr, callbacks, loaders, linear, leaves, same)
    return SimpleNamespace(**{helper.__name__: helper for helper in helpers})


@pytest.fixture(scope="session")
def train():
    """``train`` of ``program.py``, in this process."""
    path = Path(__file__).with_name("program.py")
    spec = importlib.util.spec_from_file_location("spt_jax_program", path)
    program = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(program)
    sys.path[:] = before
    return program.train
