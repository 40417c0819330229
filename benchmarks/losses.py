"""Time and peak memory of forward and backward, beside the losses of the `lightly` package.

Same inputs, in turns; medians are printed. Memory is the largest sum of what is allocated at once
beyond the inputs.

    python benchmarks/losses.py [--quick | --full] [--threads=N] [--only=NAME] [--shapes=NxD,NxD]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import lightly.loss as theirs
import spt_losses as ours
import torch
from torch import Tensor, nn

QUICK = [(256, 128), (512, 256)]
SOME = [(256, 128), (256, 2048), (1024, 512), (2048, 256), (2048, 1024), (4096, 128), (8192, 128)]
FULL = [(n, d) for n in (256, 512, 1024, 2048, 4096, 8192) for d in (128, 512, 2048, 8192)]

Loss = Callable[[Tensor, Tensor], Tensor]


class Contest(NamedTuple):
    """One objective as both packages have it; each takes two views ``(N, D)``."""

    name: str
    ours: Callable[[int], Loss]
    theirs: Callable[[int], Loss]
    fits: Callable[[int, int], bool] = lambda n, d: True


def symmetric(loss: nn.Module) -> Loss:
    """Lightly's form of a loss with predictions and projections."""
    return lambda a, b: 0.5 * (loss(a, b.detach()) + loss(b, a.detach()))


def of_each(loss: nn.Module) -> Loss:
    """The sum over the views of a loss of one view."""
    return lambda a, b: loss(a) + loss(b)


def prototypes(d: int, like: Tensor) -> Tensor:
    """The same ones for both."""
    return torch.randn(512, d, generator=torch.Generator().manual_seed(1)).to(like)


def our_swav(d: int) -> Loss:
    return lambda a, b: ours.swav_loss([a, b], prototypes(d, a))


def their_swav(d: int) -> Loss:
    loss, unit = theirs.SwaVLoss(), nn.functional.normalize
    return lambda a, b: loss([unit(z) @ unit(prototypes(d, a)).T for z in (a, b)], [])


def our_dino(d: int) -> Loss:
    loss = ours.DINOv1Loss()

    def value(a: Tensor, b: Tensor) -> Tensor:
        targets = loss.softmax_center_teacher(torch.stack([a, b]).detach(), 0.04)
        return loss(torch.stack([a, b]), targets)

    return value


def their_dino(d: int) -> Loss:
    loss: dict[torch.device, nn.Module] = {}

    def value(a: Tensor, b: Tensor) -> Tensor:
        made = loss.setdefault(a.device, theirs.DINOLoss(output_dim=d).to(a.device))
        return made([a.detach(), b.detach()], [a, b], teacher_temp=0.04)

    return value


def our_ibot(d: int) -> Loss:
    loss = ours.iBOTPatchLoss()

    def value(a: Tensor, b: Tensor) -> Tensor:
        mask = torch.ones(len(a) // 16, 16, dtype=torch.bool, device=a.device)
        return loss(a, loss.softmax_center_teacher(b.detach(), 0.07), mask)

    return value


def their_ibot(d: int) -> Loss:
    loss: dict[torch.device, nn.Module] = {}

    def value(a: Tensor, b: Tensor) -> Tensor:
        made = loss.setdefault(a.device, theirs.IBOTPatchLoss(output_dim=d).to(a.device))
        mask = torch.ones(len(a) // 16, 4, 4, dtype=torch.bool, device=a.device)
        return made(b.detach(), a, mask, teacher_temp=0.07)

    return value


def our_msn(d: int) -> Loss:
    loss = ours.MSNLoss()
    return lambda a, b: loss(a, b, prototypes(d, a))


def their_msn(d: int) -> Loss:
    loss = theirs.MSNLoss()
    return lambda a, b: loss(a, b.detach(), prototypes(d, a), target_sharpen_temperature=0.25)


def our_wmse(d: int) -> Loss:
    return ours.WMSELoss(w_size=2 * d, eps=0.0)


def their_wmse(d: int) -> Loss:
    loss: dict[torch.device, nn.Module] = {}

    def value(a: Tensor, b: Tensor) -> Tensor:
        made = theirs.WMSELoss(embedding_dim=d, w_size=2 * d, track_running_stats=False)
        return loss.setdefault(a.device, made.to(a.device))(torch.cat([a, b]))

    return value


CONTESTS = [
    Contest("NT-Xent", lambda d: ours.NTXEntLoss(0.5), lambda d: theirs.NTXentLoss(0.5)),
    Contest(
        "NT-Xent, chunk_size=512",
        lambda d: ours.NTXEntLoss(0.5, chunk_size=512),
        lambda d: theirs.NTXentLoss(0.5),
    ),
    Contest("DCL", lambda d: ours.DCLLoss(0.1), lambda d: theirs.DCLLoss(0.1)),
    Contest("Barlow Twins", lambda d: ours.BarlowTwinsLoss(), lambda d: theirs.BarlowTwinsLoss()),
    Contest("VICReg", lambda d: ours.VICRegLoss(), lambda d: theirs.VICRegLoss()),
    Contest(
        "SimSiam",
        lambda d: lambda a, b: ours.simsiam_loss(a, b, a, b),
        lambda d: symmetric(theirs.NegativeCosineSimilarity()),
    ),
    Contest("SwAV, 512 prototypes", our_swav, their_swav),
    Contest("DINO, D prototypes", our_dino, their_dino),
    Contest("iBOT, D prototypes", our_ibot, their_ibot),
    Contest("MSN, 512 prototypes", our_msn, their_msn),
    Contest(
        "KoLeo",
        lambda d: of_each(ours.KoLeoLoss()),
        lambda d: of_each(theirs.KoLeoLoss()),
    ),
    Contest("TiCo", lambda d: ours.TiCoLoss(rho=8.0), lambda d: theirs.TiCoLoss(rho=8.0)),
    Contest(
        "W-MSE, sub-batches of 2 D", our_wmse, their_wmse, lambda n, d: d <= 512 and n >= 2 * d
    ),
    Contest(
        "SIGReg, 256 slices",
        lambda d: of_each(ours.SlicedEppsPulley(256)),
        lambda d: of_each(theirs.SIGReg(num_vectors=256)),
    ),
]


def step(loss: Loss, views: list[Tensor]) -> None:
    """Forward and backward."""
    for view in views:
        view.grad = None
    loss(*views).sum().backward()


def seconds(loss: Loss, views: list[Tensor]) -> float:
    """Time of one step, the device's work included."""
    wait = torch.cuda.synchronize if views[0].is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    step(loss, views)
    wait()
    return time.perf_counter() - start


def peak_bytes(loss: Loss, views: list[Tensor]) -> int:
    """Most bytes alive at once during one step, after one that warms up."""
    step(loss, views)
    for view in views:
        view.grad = None
    if views[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, views)
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step(loss, views)
    live = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def compare(contest: Contest, n: int, d: int, device: torch.device, budget_s: float) -> list[float]:
    """Milliseconds and MiB of ours and of theirs."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(n, d, generator=generator) for _ in range(2)]
    views = [view.to(device).requires_grad_() for view in views]
    losses = [contest.ours(d), contest.theirs(d)]
    memory = [peak_bytes(loss, views) / 2**20 for loss in losses]
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + budget_s
    while len(times[1]) < 3 or (time.perf_counter() < end and len(times[1]) < 50):
        for loss, taken in zip(losses, times, strict=True):
            taken.append(1e3 * seconds(loss, views))
    return [*map(statistics.median, times), *memory]


def main(arguments: list[str]) -> None:
    """Print a table in Markdown, one line for each objective and shape."""
    threads = [int(a.partition("=")[2]) for a in arguments if a.startswith("--threads=")]
    only = [a.partition("=")[2] for a in arguments if a.startswith("--only=")]
    torch.set_num_threads(*(threads or [torch.get_num_threads()]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quick, full = "--quick" in arguments, "--full" in arguments
    shapes = [a.partition("=")[2] for a in arguments if a.startswith("--shapes=")]
    chosen = QUICK if quick else FULL if full else SOME
    if shapes:
        sides = [shape.split("x") for shape in shapes[0].split(",")]
        chosen = [(int(n), int(d)) for n, d in sides]
    place = "CUDA" if device.type == "cuda" else f"CPU, {torch.get_num_threads()} cores"
    print(f"{place}, float32, forward + backward, ours / lightly\n")
    print("| loss | N | D | ms | ratio | MiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for contest in CONTESTS:
        if only and contest.name not in only:
            continue
        for n, d in chosen:
            if not contest.fits(n, d):
                continue
            a, b, x, y = compare(contest, n, d, device, 0.2 if quick else 1.0)
            print(
                f"| {contest.name} | {n} | {d} | {a:.1f} / {b:.1f} | {a / b:.2f} "
                f"| {x:.0f} / {y:.0f} | {x / y:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
