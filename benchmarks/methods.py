"""Images per second and peak memory of one training step of each method.

Beside MAE, DINO and I-JEPA stand the plainest correct implementations, written here, and the same made of
the building blocks of the `lightly` package. A step is forward, backward, AdamW and, where there is a
teacher, its update. Encoder, images and heads are the same for all contestants of a method.

    python benchmarks/methods.py [NAME ...] [--quick] [--batch=N] [--threads=N]

An image counts once, however many crops of it are seen. Memory is the largest sum of what is allocated at
once during a step, beyond parameters, optimizer and batch.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
from lightly.loss import DINOLoss
from lightly.models import utils as lightly_utils
from lightly.models.modules import (
    IJEPAPredictorTIMM,
    MAEDecoderTIMM,
    MaskedVisionTransformerTIMM,
)
from lightly.models.modules.heads import DINOProjectionHead
from spt_callbacks import ema_update
from spt_methods import methods
from spt_methods.backbones import RandomProjectionTokenizer, TeacherStudentWrapper, ViTTokens
from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.catalogue import CATALOGUE
from spt_methods.masking import IJEPAMasking
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

Batch = dict[str, Any]


class Scale(NamedTuple):
    """Sizes of the contest: the first are those of a GPU."""

    size: int = 224
    small: int = 96
    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    batch: int = 64
    locals: int = 6
    prototypes: int = 65536
    decoder: int = 512
    decoder_depth: int = 8
    frames: int = 16


CPU = Scale(64, 32, 8, 192, 4, 3, 32, 2, 4096, 128, 2, 4)
QUICK = Scale(32, 16, 8, 48, 2, 3, 8, 2, 64, 32, 1, 4)


def vit(scale: Scale, **settings: Any) -> nn.Module:
    """The encoder of all contestants."""
    return timm.create_model(
        "vit_small_patch16_224", img_size=scale.size, patch_size=scale.patch, depth=scale.depth,
        embed_dim=scale.width, num_heads=scale.heads, num_classes=0, dynamic_img_size=True, **settings,
    )  # fmt: skip


def batch_of(kind: str, scale: Scale, device: torch.device) -> Batch:
    """What a method reads."""
    n, side = scale.batch, scale.size

    def view(size: int = side) -> Batch:
        box = torch.tensor([0, 0, size, size], device=device).repeat(n, 1)
        return {"image": torch.rand(n, 3, size, size, device=device), "RandomResizedCrop": box}

    shared = {"label": torch.arange(n, device=device) % 10}
    if kind == "multi-crop":
        crops = {f"global_{i}": view() for i in range(2)}
        return {**crops, **{f"local_{i}": view(scale.small) for i in range(scale.locals)}}
    if kind == "one image":
        return {**view(), **shared, "sample_idx": torch.arange(n, device=device)}
    if kind == "one video":
        frames = torch.rand(n, scale.frames, 3, side, side, device=device)
        return {"video": frames, **shared}
    if kind == "image and text":
        return {**view(), **shared, "text": ["a photo of a dog"] * n}
    return {"views": [view(), view()], **shared}


# --- ours ----------------------------------------------------------------------------------------


def ours(name: str, scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """The method as its class; the steps of its teachers are taken as its callbacks would."""
    large = scale.size == 224
    heads = {"projector_hidden_dim": 2048 if large else 256}
    wide = {} if large else {"projector_dims": (1024, 1024, 1024)}
    text = {"text_width": scale.width, "text_depth": scale.depth, "text_heads": scale.heads}
    predictor = {"predictor_embed_dim": scale.width, "predictor_depth": scale.decoder_depth}
    settings: dict[str, dict[str, Any]] = {
        "BEiT": {"tokenizer": RandomProjectionTokenizer(8192, scale.patch)},
        "CMAE": {"pixel_shift": 0, **_decoder(scale)},
        "CrossMAE": _decoder(scale),
        "Data2Vec": {"top_k_blocks": min(6, scale.depth)},
        "iBOT": {"n_cls_prototypes": min(8192, scale.prototypes), **heads},
        "iGPT": {"feature_layers": min(6, scale.depth)},
        "IJEPA": predictor,
        "MAE": _decoder(scale),
        "MaskFeat": {"hog_cell": scale.patch // 2},
        "MIMRefiner": {"num_heads": min(8, scale.depth), "queue_length": scale.prototypes},
        "PIRL": {"num_samples": 4096},
        "SALT": {"teacher": ViTTokens(vit(scale, **PATCHES_ALONE)), **predictor},
        "VJEPA": {"num_frames": scale.frames, **predictor},
        **dict.fromkeys(("BarlowTwins", "VICReg", "VICRegL"), wide),
        **dict.fromkeys(("CLIP", "SigLIP"), text),
        "SimMIM": {"mask_size": 2 * scale.patch},
        **{
            key: {"n_prototypes": scale.prototypes, **heads} for key in ("DINO", "DINOv2", "DINOv3")
        },
    }
    arguments = {**settings.get(name, {}), **(_sizes(scale) if name in BY_NAME else {})}
    module = getattr(methods, name)(_encoder_of(name, scale), **arguments)
    module = module.to(device).train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    pairs = [m for m in module.modules() if isinstance(m, TeacherStudentWrapper)]

    def step(batch: Batch) -> Tensor:
        loss: Tensor = module(batch, "fit")["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for pair in pairs:
            pair.update_teacher()
        return loss

    return step


def _decoder(scale: Scale) -> dict[str, Any]:
    return {
        "decoder_embed_dim": scale.decoder,
        "decoder_depth": scale.decoder_depth,
        "decoder_num_heads": 8,
    }


PATCHES_ALONE = {"class_token": False, "global_pool": "avg", "fc_norm": False}
BY_NAME = ("DINOv3", "iGPT", "NEPA", "SALT", "VJEPA")  # whose encoders are special


def _encoder_of(name: str, scale: Scale) -> str | nn.Module:
    if name == "PIRL":  # patches of a jigsaw suit convolutions alone
        return timm.create_model("resnet18", num_classes=0)
    if name in BY_NAME:
        return "vit_small_patch16_dinov3" if name == "DINOv3" else "vit_small_patch16_224"
    return vit(scale, **(PATCHES_ALONE if name == "IJEPA" else {}))


def _sizes(scale: Scale) -> dict[str, Any]:
    """Of an encoder given by name."""
    shape = {"patch_size": scale.patch, "depth": scale.depth, "embed_dim": scale.width}
    return {"image_size": scale.size, "encoder_kwargs": {**shape, "num_heads": scale.heads}}


# --- the plainest implementations ----------------------------------------------------------------


def plain_mae(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """MAE as its paper's figure 1: shuffle, encode the first quarter, unshuffle, decode."""
    encoder = vit(scale)
    number, size = (scale.size // scale.patch) ** 2, scale.decoder
    positions = torch.zeros(1, number + 1, size)
    positions[0, 1:] = get_sincos_pos_embed(size, number, "2d")
    parts = nn.ModuleDict({
        "encoder": encoder, "embed": nn.Linear(scale.width, size),
        "blocks": nn.Sequential(*(Block(size, 8, qkv_bias=True) for _ in range(scale.decoder_depth))),
        "norm": nn.LayerNorm(size), "pred": nn.Linear(size, 3 * scale.patch**2),
    }).to(device)  # fmt: skip
    mask_token = nn.Parameter(torch.zeros(1, 1, size, device=device))
    positions = positions.to(device)

    def loss_of(batch: Batch) -> Tensor:
        images = batch["image"]
        x = encoder._pos_embed(encoder.patch_embed(images))
        cls, x = x[:, :1], x[:, 1:]
        order = torch.rand(len(x), number, device=device).argsort(1)
        keep = order[:, : number // 4]
        x = torch.gather(x, 1, keep.unsqueeze(2).expand(-1, -1, scale.width))
        x = encoder.norm(encoder.blocks(torch.cat([cls, x], 1)))
        x = parts["embed"](x)
        hidden = mask_token.expand(len(x), number - keep.shape[1], -1)
        full = torch.cat([x[:, 1:], hidden], 1)
        back = order.argsort(1)
        full = torch.gather(full, 1, back.unsqueeze(2).expand(-1, -1, size))
        x = parts["blocks"](torch.cat([x[:, :1], full], 1) + positions)
        pred = parts["pred"](parts["norm"](x))[:, 1:]
        p = scale.patch
        target = (
            images.unfold(2, p, p)
            .unfold(3, p, p)
            .permute(0, 2, 3, 4, 5, 1)
            .flatten(3)
            .flatten(1, 2)
        )
        target = (target - target.mean(2, keepdim=True)) / (
            target.var(2, keepdim=True) + 1e-6
        ).sqrt()
        mask = (back >= keep.shape[1]).float()
        return ((pred - target).square().mean(2) * mask).sum() / mask.sum()

    return trained(loss_of, [*parts.parameters(), mask_token])


def plain_dino(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """DINO as its Algorithm 1: crop by crop, pair by pair."""
    hidden = 2048 if scale.size == 224 else 256
    student = nn.Sequential(
        vit(scale), nn.Linear(scale.width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
        nn.Linear(hidden, 256), Unit(), nn.utils.parametrizations.weight_norm(
            nn.Linear(256, scale.prototypes, bias=False)),
    ).to(device)  # fmt: skip
    teacher = copy.deepcopy(student).requires_grad_(False)
    center = torch.zeros(scale.prototypes, device=device)

    def loss_of(batch: Batch) -> Tensor:
        crops = [view["image"] for view in batch.values()]
        with torch.no_grad():
            shown = [teacher(crop) for crop in crops[:2]]
        guesses = [student(crop) for crop in crops]
        total, pairs = 0.0, 0
        for i, t in enumerate(shown):
            target = ((t - center) / 0.04).softmax(1)
            for j, s in enumerate(guesses):
                if i != j:
                    total = total - (target * (s / 0.1).log_softmax(1)).sum(1).mean()
                    pairs += 1
        center.mul_(0.9).add_(torch.cat(shown).mean(0), alpha=0.1)
        return total / pairs  # type: ignore[return-value]

    def average() -> None:
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.mul_(0.996).add_(new, alpha=0.004)

    return trained(loss_of, student.parameters(), average)


class Unit(nn.Module):
    """Unit rows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


def plain_ijepa(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """I-JEPA block by block, with the masks of our generator."""
    student: Any = vit(scale, **PATCHES_ALONE).to(device)
    teacher: Any = copy.deepcopy(student).requires_grad_(False)
    rows, width = scale.size // scale.patch, scale.width
    masking = IJEPAMasking(min_keep=2)
    positions = get_sincos_pos_embed(width, rows**2, "2d").to(device)
    blocks = (Block(width, scale.heads, qkv_bias=True) for _ in range(scale.decoder_depth))
    predictor = nn.Sequential(*blocks, nn.LayerNorm(width), nn.Linear(width, width)).to(device)
    embed = nn.Linear(width, width).to(device)
    token = nn.Parameter(torch.zeros(1, 1, width, device=device))

    def at(x: Tensor, places: Tensor) -> Tensor:
        return torch.gather(x, 1, places.unsqueeze(2).expand(-1, -1, x.shape[2]))

    def loss_of(batch: Batch) -> Tensor:
        images = batch["image"]
        masks = masking(len(images), (rows, rows), device)
        with torch.no_grad():
            whole = F.layer_norm(teacher.forward_features(images), (width,))
        x = at(student._pos_embed(student.patch_embed(images)), masks.context_idx)
        x = embed(student.norm(student.blocks(x))) + positions[masks.context_idx]
        losses = []
        for places in masks.target_idx:
            out = predictor(torch.cat([x, token + positions[places]], 1))[:, x.shape[1] :]
            losses.append(F.smooth_l1_loss(out, at(whole, places)))
        return torch.stack(losses).mean()

    def average() -> None:
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.mul_(0.996).add_(new, alpha=0.004)

    parameters = [*student.parameters(), *predictor.parameters(), *embed.parameters(), token]
    return trained(loss_of, parameters, average)


def trained(
    loss_of: Callable[[Batch], Tensor], parameters: Any, average: Callable[[], None] | None = None
) -> Callable[[Batch], Tensor]:
    """A step of AdamW on a loss."""
    optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=1e-4)

    def step(batch: Batch) -> Tensor:
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average()
        return loss

    return step


# --- of lightly's building blocks ----------------------------------------------------------------


def lightly_mae(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """As lightly's example of MAE, with targets standardised as ours."""
    encoder = MaskedVisionTransformerTIMM(vit=vit(scale)).to(device)
    decoder = MAEDecoderTIMM(
        num_patches=(scale.size // scale.patch) ** 2, patch_size=scale.patch, embed_dim=scale.width,
        decoder_embed_dim=scale.decoder, decoder_depth=scale.decoder_depth, decoder_num_heads=8,
    ).to(device)  # fmt: skip

    def loss_of(batch: Batch) -> Tensor:
        images = batch["image"]
        size = (len(images), encoder.sequence_length)
        keep, mask = lightly_utils.random_token_mask(size=size, mask_ratio=0.75, device=device)
        x = decoder.embed(encoder.encode(images=images, idx_keep=keep))
        full = lightly_utils.repeat_token(decoder.mask_token, size)
        full = lightly_utils.set_at_index(full, keep, x.type_as(full))
        pred = decoder.predict(lightly_utils.get_at_index(decoder.decode(full), mask))
        target = lightly_utils.patchify(images, scale.patch)
        target = lightly_utils.normalize_mean_var(lightly_utils.get_at_index(target, mask - 1))
        return F.mse_loss(pred, target)

    return trained(loss_of, [*encoder.parameters(), *decoder.parameters()])


def lightly_dino(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """As lightly's example of DINO."""
    hidden = 2048 if scale.size == 224 else 256
    head = DINOProjectionHead(scale.width, hidden, 256, scale.prototypes)
    student = nn.ModuleList([vit(scale), head]).to(device)
    teacher = nn.ModuleList(
        [vit(scale), DINOProjectionHead(scale.width, hidden, 256, scale.prototypes)]
    ).to(device).requires_grad_(False)  # fmt: skip
    criterion = DINOLoss(output_dim=scale.prototypes).to(device)

    def loss_of(batch: Batch) -> Tensor:
        crops = [view["image"] for view in batch.values()]
        with torch.no_grad():
            shown = [teacher[1](teacher[0](crop)) for crop in crops[:2]]
        guesses = [student[1](student[0](crop)) for crop in crops]
        return criterion(shown, guesses, epoch=0)

    def average() -> None:
        lightly_utils.update_momentum(student, teacher, 0.996)

    return trained(loss_of, student.parameters(), average)


def lightly_ijepa(scale: Scale, device: torch.device) -> Callable[[Batch], Tensor]:
    """Lightly's predictor and masked encoder, with the masks of our generator."""
    student = MaskedVisionTransformerTIMM(vit=vit(scale, **PATCHES_ALONE)).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    rows = scale.size // scale.patch
    predictor = IJEPAPredictorTIMM(
        num_patches=rows**2, depth=scale.decoder_depth, mlp_dim=scale.width,
        predictor_embed_dim=scale.width, num_heads=scale.heads,
    ).to(device)  # fmt: skip
    masking = IJEPAMasking(min_keep=2)

    def loss_of(batch: Batch) -> Tensor:
        images = batch["image"]
        masks = masking(len(images), (rows, rows), device)
        targets = [*masks.target_idx]
        with torch.no_grad():
            whole = F.layer_norm(teacher.encode(images), (scale.width,))
            goal = lightly_utils.apply_masks(whole, targets)
        x = student.encode(images, idx_keep=masks.context_idx)
        return F.smooth_l1_loss(predictor(x, [masks.context_idx], targets), goal)

    parameters = [*student.parameters(), *predictor.parameters()]
    return trained(loss_of, parameters, lambda: ema_update(teacher, student, 0.996))


OTHERS = {
    "MAE": {"plain": plain_mae, "lightly": lightly_mae},
    "DINO": {"plain": plain_dino, "lightly": lightly_dino},
    "IJEPA": {"plain": plain_ijepa, "lightly": lightly_ijepa},
}


# --- measuring -----------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> float:
    """Of one step."""
    wait(device)
    start = time.perf_counter()
    step(batch)
    wait(device)
    return time.perf_counter() - start


def peak_bytes(step: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> int:
    """Most bytes alive at once during one step, beyond those before it."""
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(batch)
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step(batch)
    live = peak = 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def measure(
    steps: dict[str, Callable[[Batch], Tensor]], batch: Batch, device: torch.device, budget_s: float
) -> dict[str, tuple[float, int]]:
    """Median seconds and peak bytes of each contestant, which take turns."""
    for step in steps.values():
        step(batch)
    memory = {who: peak_bytes(step, batch, device) for who, step in steps.items()}
    times: dict[str, list[float]] = {who: [] for who in steps}
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for who, step in steps.items():
            times[who].append(seconds(step, batch, device))
    return {who: (statistics.median(times[who]), memory[who]) for who in steps}


def main(arguments: list[str]) -> None:
    """Print one row for each method, or for those that are named."""
    warnings.filterwarnings("ignore")
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    names = [a for a in arguments if not a.startswith("--")]
    rows = [row for row in CATALOGUE if not names or row.method in names]
    if "threads" in options:
        torch.set_num_threads(int(options["threads"]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = Scale() if device.type == "cuda" else CPU
    scale = QUICK if "quick" in options else scale
    scale = scale._replace(batch=int(options.get("batch", scale.batch)))
    place = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{torch.get_num_threads()} threads"
    )
    print(f"{place}, float32, {scale}\n")
    print("| method | img/s | peak MiB | plain img/s | MiB | lightly img/s | MiB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        makers = OTHERS.get(row.method, {})
        torch.manual_seed(0)
        steps = {"ours": ours(row.method, scale, device)}
        steps |= {who: make(scale, device) for who, make in makers.items()}
        batch = batch_of(row.views, scale, device)
        found = measure(steps, batch, device, 0.0 if "quick" in options else 2.0)
        cells = [
            f"{scale.batch / found[who][0]:.0f} | {found[who][1] / 2**20:.0f}"
            if who in found
            else " | "
            for who in ("ours", "plain", "lightly")
        ]
        print(f"| {row.method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
