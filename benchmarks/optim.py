"""Time of one LARS step over the parameters of a ResNet-50.

Ours (`spt_optim.LARS`) beside timm's `Lars` and `torch.optim.SGD(foreach=True)`, which does no scaling
at all. Interleaved; the median of each is printed.

    python benchmarks/optim.py [--quick] [--threads=N]
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from spt_optim import LARS, create_optimizer
from timm import create_model
from timm.optim import Lars


def parameters(model: str, device: torch.device) -> torch.nn.Module:
    """A network on the device, with a gradient for each parameter."""
    torch.manual_seed(0)
    net = create_model(model).to(device)
    for p in net.parameters():
        p.grad = torch.randn_like(p) * 1e-3
    return net


def contestants(model: str, device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """Each optimizer over its own copy of the network."""

    def groups(net: torch.nn.Module) -> list[dict[str, object]]:
        """Timm's usual two groups: without decay it does not scale."""
        decayed = [p for p in net.parameters() if p.ndim > 1]
        plain = [p for p in net.parameters() if p.ndim <= 1]
        return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]

    settings = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-6}
    nets = [parameters(model, device) for _ in range(4)]
    return {
        "spt_optim LARS": LARS(nets[0].parameters(), **settings),
        "spt_optim LARS, by layer type": create_optimizer(
            nets[1].parameters(), {"type": "LARS", **settings}, module=nets[1]
        ),
        "timm Lars": Lars(groups(nets[2]), **settings),
        "torch SGD(foreach=True)": torch.optim.SGD(nets[3].parameters(), **settings, foreach=True),
    }


def seconds(optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Time of one step, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    """Time the contestants in turns and print the medians."""
    quick = "--quick" in arguments
    threads = [int(a.partition("=")[2]) for a in arguments if a.startswith("--threads=")]
    torch.set_num_threads(*(threads or [torch.get_num_threads()]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = "resnet10t" if quick else "resnet50"
    optimizers = contestants(model, device)
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for turn in range(5 if quick else 60):
        for name, optimizer in optimizers.items():
            taken = seconds(optimizer, device)
            if turn >= 2:  # the first steps make the buffers
                times[name].append(taken)
    base = statistics.median(times["torch SGD(foreach=True)"])
    count = sum(
        p.numel() for group in optimizers["timm Lars"].param_groups for p in group["params"]
    )
    print(f"{model}, {count / 1e6:.1f} M parameters, {device.type}, float32, ms per step")
    print(f"{'optimizer':32} {'median':>8} {'x SGD':>7}")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:32} {1e3 * median:8.2f} {median / base:7.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
