"""spt-jax: compile time, host overhead per step and images per second, beside a bare loop and torch.

``python benchmarks/jax.py [--quick]``. The same SimCLR (a narrow ResNet of three blocks, images of 16 pixels,
AdamW) three times: under ``spt_jax.Trainer``; in the bare loop below, which is what one writes by hand with
``jax.jit``; and in torch. The three take turns; numbers are medians over rounds. Each side has one thread
pool of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path = [entry for entry in sys.path if Path(entry).resolve() != HERE]  # this file is no `jax`

import jax
import jax.numpy as jnp
import numpy as np
import optax
import spt_jax as spj
from flax import nnx

WIDTHS, SIDE, DIMS, LR = (16, 32, 64), 16, (128, 64), 1e-3


def batches_of(rows: int, number: int) -> list[dict]:
    """Pairs of views, as a loader gives them."""
    rng = np.random.default_rng(0)
    shape = (rows, SIDE, SIDE, 3)
    return [
        {"views": [{"image": rng.random(shape, dtype=np.float32)} for _ in range(2)]}
        for _ in range(number)
    ]


def jax_model() -> spj.SimCLR:
    rngs = nnx.Rngs(0)
    block = spj.backbone.BasicBlock
    encoder = spj.backbone.ResNet(block, (1, 1, 1), widths=WIDTHS, low_resolution=True, rngs=rngs)
    optim = {"type": "adamw", "lr": LR}
    return spj.SimCLR(encoder, WIDTHS[-1], rngs=rngs, projector_dims=DIMS, optim=optim)


def bare(batches: list[dict]) -> tuple[Callable[[], None], float]:
    """The minimal loop: split once, one donated ``jax.jit``, a fetch of the loss every ten steps."""
    module = jax_model()
    module.train()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    tx = optax.adamw(LR, weight_decay=1e-2)
    state = jax.tree.map(jnp.copy, {"params": params, "rest": rest, "opt": tx.init(params)})

    def step(state: dict, batch: dict) -> tuple[dict, jax.Array]:
        def loss_of(params: object) -> tuple[jax.Array, object]:
            net = nnx.merge(graph, params, state["rest"], copy=True)
            return net(batch, "fit")["loss"], nnx.split(net, nnx.Param, ...)[2]

        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt = tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "rest": rest, "opt": opt}, loss

    compiled = jax.jit(step, donate_argnums=0)
    held = {"state": state}

    def run() -> None:
        state = held["state"]
        losses = []
        for batch in batches:
            state, loss = compiled(state, jax.device_put(batch))
            losses.append(loss)
            if len(losses) == 10:
                jax.device_get(losses)
                losses = []
        jax.block_until_ready(state)
        held["state"] = state

    return run, timed(run)


class Endless:
    """One epoch's batches again and again; the Trainer is asked for one more epoch per round."""

    def __init__(self, batches: list[dict]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def trained(batches: list[dict]) -> tuple[Callable[[], None], float]:
    """The same under the Trainer; a round is an epoch, its row of means included."""
    from spt_jax.loops import training_loop

    module, loader = jax_model(), Endless(batches)
    trainer = spj.Trainer(max_epochs=1, log_every_n_steps=10, progress=False)
    start = time.perf_counter()
    trainer.fit(module, loader)
    first = time.perf_counter() - start

    def run() -> None:
        trainer.max_epochs += 1
        training_loop(trainer, module, loader, None)
        jax.block_until_ready(trainer.state)

    return run, first


def torch_loop(batches: list[dict]) -> tuple[Callable[[], None], float]:
    """The same model and loss in torch, eagerly."""
    import torch
    from spt_losses import ntxent_loss
    from torch import nn

    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(a, b, 3, stride, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Conv2d(b, b, 3, 1, 1, bias=False),
                nn.BatchNorm2d(b),
            )
            same = stride == 1 and a == b
            self.short = (
                nn.Identity()
                if same
                else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.main(x) + self.short(x))

    a, b, c = WIDTHS
    net = nn.Sequential(
        nn.Conv2d(3, a, 3, 1, 1, bias=False),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        Block(a, a, 1),
        Block(a, b, 2),
        Block(b, c, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(c, DIMS[0], bias=False),
        nn.BatchNorm1d(DIMS[0]),
        nn.ReLU(),
        nn.Linear(DIMS[0], DIMS[1], bias=False),
        nn.BatchNorm1d(DIMS[1]),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR)
    data = [
        torch.from_numpy(np.concatenate([view["image"] for view in batch["views"]]))
        .permute(0, 3, 1, 2)
        .contiguous(memory_format=torch.channels_last)
        for batch in batches
    ]
    net = net.to(memory_format=torch.channels_last)

    def run() -> None:
        for x in data:
            loss = ntxent_loss(*net(x).chunk(2), temperature=0.5)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return run, timed(run)


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def overhead_of(rounds: int, number: int) -> None:
    """Milliseconds per step of a step that computes next to nothing: what the host costs."""
    batches = [{"image": np.ones((8, 12), np.float32)} for _ in range(number)]
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(12, 12, rngs=rngs) for _ in range(62)]

    def forward(self: spj.Module, batch: dict, stage: str) -> dict:
        return {"loss": (self.net(batch["image"]) ** 2).mean()}

    module = spj.Module(forward=forward, net=nnx.Sequential(*layers), optim="adamw")
    trainer = spj.Trainer(log_every_n_steps=10, progress=False)
    trainer.fit(module, Endless(batches))
    from spt_jax.loops import training_loop

    def run() -> None:
        trainer.max_epochs += 1
        training_loop(trainer, module, Endless(batches), None)
        jax.block_until_ready(trainer.state)

    times = [timed(run) / number * 1e3 for _ in range(rounds)]
    leaves = len(jax.tree.leaves(trainer.state))
    print(f"\nhost: {statistics.median(times):.2f} ms per step with {leaves} leaves of state")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--rows", type=int, default=64)
    options = parser.parse_args()
    rounds, number = (3, 10) if options.quick else (9, 30)
    batches = batches_of(options.rows, number)
    sides = {"bare jax.jit loop": bare, "spt_jax.Trainer": trained, "torch, eager": torch_loop}
    made = {name: build(batches) for name, build in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, (run, _) in made.items():
            times[name].append(timed(run) / number)
    print(
        f"SimCLR, {2 * options.rows} views of {SIDE} pixels, {jax.default_backend()}, {rounds} rounds"
    )
    print(f"{'':20} {'first epoch':>12} {'ms / step':>10} {'img / s':>9} {'beside bare':>12}")
    least = statistics.median(times["bare jax.jit loop"])
    for name, (_, first) in made.items():
        step = statistics.median(times[name])
        ratios = [t / b for t, b in zip(times[name], times["bare jax.jit loop"], strict=True)]
        print(
            f"{name:20} {first:10.1f} s {step * 1e3:10.1f} {options.rows / step:9.0f} "
            f"{100 * (statistics.median(ratios) - 1):+11.1f} %"
        )
    print(f"least step: {least * 1e3:.1f} ms")
    overhead_of(rounds, number)


if __name__ == "__main__":
    main()
