"""Images per second of three recipes: ours eager and compiled, kornia's, and torchvision's.

Every contestant turns uint8 images of 256 pixels into normalised float views; a view counts as an
image. Contestants take turns, medians are printed. The floor is the time of reading every input
byte and writing every output byte once, at the bandwidth that a large copy reaches here.

    python benchmarks/augment.py [--quick] [--only=simclr] [--batch=64] [--threads=N] [--workers=N]
        [--rounds=15] [--cpu-time]

With ``--cpu-time`` the processor time of this process counts instead of the clock's, which other
programs on the machine stretch; the loader workers, being other processes, are left out.

kornia's chain is its stock one: its modules in an ``AugmentationSequential``, from floats, which
it needs. torchvision on the batch draws once for the whole batch, so it does less. torchvision
per sample runs in loader workers with nothing else to do there. On a GPU, all but the last run on
it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import kornia.augmentation as K
import torch
import torchvision.transforms.v2 as v2
from spt_augment import recipes
from spt_augment._recipe_table import RECIPES, ViewSpec
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SIDE = 256
NAMES = ("simclr", "byol", "dino")
Views = list[Tensor]


class Contestant(NamedTuple):
    """A name and what it does with a uint8 batch."""

    name: str
    run: Callable[[Tensor], Views]


def ours(name: str, compiled: bool) -> Callable[[Tensor], Views]:
    """Our recipe, which draws every image's parameters on its own."""
    chain = recipes.preset(name, compile=compiled)
    if compiled:
        chain.compile()

    def run(images: Tensor) -> Views:
        out = chain({"image": images})
        views = out.get("views") or [out[view.name] for view in RECIPES[name].views]
        return [view["image"] for view in views]

    return run


def kornia_chain(view: ViewSpec) -> K.AugmentationSequential:
    """The same steps from kornia."""
    size, b = (view.size, view.size), view.jitter or (0, 0, 0, 0)
    mode = "bicubic" if view.interpolation == "bicubic" else "bilinear"
    steps = [K.RandomResizedCrop(size, view.crop_scale, view.crop_ratio, resample=mode)]
    steps += [K.RandomHorizontalFlip(p=view.flip_p)] * (view.flip_p > 0)
    steps += [K.ColorJitter(*b, p=view.jitter_p)] * (view.jitter is not None)
    steps += [K.RandomGrayscale(p=view.grayscale_p)] * (view.grayscale_p > 0)
    taps = (view.blur_kernel, view.blur_kernel)
    steps += [K.RandomGaussianBlur(taps, view.blur_sigma, p=view.blur_p)] * (view.blur_p > 0)
    threshold = (view.solarize_threshold,) * 2
    steps += [K.RandomSolarize(threshold, 0.0, p=view.solarize_p)] * (view.solarize_p > 0)
    steps += [K.Normalize(torch.tensor(view.mean), torch.tensor(view.std))]
    return K.AugmentationSequential(*steps, data_keys=["input"])


def kornias(name: str, device: torch.device) -> Callable[[Tensor], Views]:
    """Kornia's stock chains, one for each view."""
    chains = [kornia_chain(view).to(device) for view in RECIPES[name].views]
    return lambda images: [chain(images.float() / 255) for chain in chains]


def torchvision_chain(view: ViewSpec) -> v2.Compose:
    """The same steps from torchvision, on uint8 as long as possible."""
    mode = v2.InterpolationMode(view.interpolation)
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(view.size, view.crop_scale, view.crop_ratio, mode, antialias=True),
        v2.RandomHorizontalFlip(view.flip_p),
    ]
    if view.jitter is not None:
        steps.append(v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_p))
    steps.append(v2.RandomGrayscale(view.grayscale_p))
    if view.blur_p > 0:
        blur = v2.GaussianBlur(view.blur_kernel, view.blur_sigma)
        steps.append(v2.RandomApply([blur], view.blur_p))
    if view.solarize_p > 0:
        steps.append(v2.RandomSolarize(256 * view.solarize_threshold, view.solarize_p))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(view.mean, view.std)]
    return v2.Compose(steps)


def torchvisions(name: str) -> Callable[[Tensor], Views]:
    """Torchvision's chains on the batch: one draw for all of it."""
    chains = [torchvision_chain(view) for view in RECIPES[name].views]
    return lambda images: [chain(images) for chain in chains]


class Samples(Dataset[Views]):
    """Each image through torchvision's chains, alone."""

    def __init__(self, name: str, images: Tensor) -> None:
        self.images = images.cpu()
        self.chains = [torchvision_chain(view) for view in RECIPES[name].views]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Views:
        return [chain(self.images[index]) for chain in self.chains]


def one_thread(_: int) -> None:
    torch.set_num_threads(1)


def in_workers(name: str, images: Tensor, workers: int) -> Callable[[Tensor], Views]:
    """Loader workers that hold the images already and rest between two calls."""
    loader = DataLoader(
        Samples(name, images),
        max(1, len(images) // (2 * workers)),
        num_workers=workers,
        worker_init_fn=one_thread,
        persistent_workers=True,
    )
    return lambda _: [torch.cat(parts) for parts in zip(*loader, strict=True)]


clock = time.process_time if "--cpu-time" in sys.argv else time.perf_counter


def seconds(run: Callable[[Tensor], Views], images: Tensor) -> tuple[float, Views]:
    """Time of one batch, the device's work included."""
    wait = torch.cuda.synchronize if images.is_cuda else lambda: None
    wait()
    start = clock()
    views = run(images)
    wait()
    return clock() - start, views


def bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy, reads and writes counted."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda _: [target.copy_(source)], source)[0] for _ in range(7)]
    return 2 * source.nbytes / statistics.median(times)


def compare(name: str, images: Tensor, options: dict[str, int]) -> None:
    """Print the lines of one recipe."""
    contestants = [
        Contestant("spt-augment, eager", ours(name, False)),
        Contestant("spt-augment, compiled", ours(name, True)),
        Contestant("kornia AugmentationSequential", kornias(name, images.device)),
        Contestant("torchvision v2 on the batch", torchvisions(name)),
    ]
    if clock is time.perf_counter:
        workers = options["workers"]
        label = f"torchvision v2 per sample, {workers} workers"
        contestants.append(Contestant(label, in_workers(name, images, workers)))
    for contestant in contestants:
        # the first calls compile, for hue before and after contrast
        for _ in range(8 if "compiled" in contestant.name else 1):
            views = contestant.run(images)
    taken: dict[str, list[float]] = {c.name: [] for c in contestants}
    for _ in range(options["rounds"]):
        for contestant in contestants:
            taken[contestant.name].append(seconds(contestant.run, images)[0])
    bytes_moved = images.nbytes + sum(view.nbytes for view in views)
    floor = bytes_moved / bandwidth(images.device)
    count = len(views) * len(images)
    medians = {label: statistics.median(times) for label, times in taken.items()}
    stock = medians["kornia AugmentationSequential"]
    for label, median in medians.items():
        print(
            f"| {name} | {label} | {count / median:,.0f} | {stock / median:.1f} "
            f"| {median / floor:.1f} |",
            flush=True,
        )
    print(f"| {name} | bytes floor | {count / floor:,.0f} | {stock / floor:.1f} | 1.0 |")


def main(arguments: list[str]) -> None:
    """Print a table in Markdown."""
    given = dict(a[2:].split("=", 1) for a in arguments if "=" in a)
    quick = "--quick" in arguments
    threads = int(given.get("threads", torch.get_num_threads()))
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = int(given.get("batch", 256 if device.type == "cuda" else 16))
    options = {
        "workers": int(given.get("workers", 2)),
        "rounds": int(given.get("rounds", 3 if quick else 15)),
    }
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {threads} threads"
    kind = "clock" if clock is time.perf_counter else "processor"
    print(f"{place}, batches of {size} uint8 images of {SIDE} pixels, medians of {kind} time\n")
    print("| recipe | | images/s | x kornia | x bytes floor |")
    print("|---|---|---|---|---|")
    with torch.no_grad():
        for name in [given["only"]] if "only" in given else NAMES:
            compare(name, images.to(device), options)


if __name__ == "__main__":
    main(sys.argv[1:])
