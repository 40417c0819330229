"""One of two processes: gradients of every method, and a run of two optimizers under DDP.

Run by ``test_ranks.py`` as ``python ranks_program.py RANK PORT FOLDER``; RANK -1 is the one process that
sees the whole batch.
"""

import os
import sys
from pathlib import Path

import lightning as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from spt_methods import Module, backbones, methods
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

PROTOTYPES = {"n_prototypes": 6, "projector_hidden_dim": 8, "projector_bottleneck_dim": 4}
DECODER = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
METHODS = {
    "BarlowTwins": {"projector_dims": (8, 4)},
    "BEiT": {"drop_path_rate": 0.0},
    "BYOL": {"projector_dims": (8, 4), "predictor_dims": (8, 4)},
    "CMAE": {**DECODER, "feature_decoder_depth": 1, "projector_hidden_dim": 8, "projector_dim": 4,
             "pixel_shift": 0},
    "CrossMAE": DECODER,
    "CLIP": {"text_width": 8, "text_depth": 1, "text_heads": 2, "embed_dim": 4},
    "Data2Vec": {"top_k_blocks": 1, "drop_path_rate": 0.0},
    "DeiT": {"num_classes": 3, "mix_prob": 0.0},
    "DINO": PROTOTYPES,
    "DINOv2": {**PROTOTYPES, "drop_path_rate": 0.0},
    "DINOv3": {**PROTOTYPES, "drop_path_rate": 0.0, "gram_start_step": None},
    "iBOT": {"n_cls_prototypes": 6, "projector_hidden_dim": 8, "projector_bottleneck_dim": 4},
    "IJEPA": {"predictor_embed_dim": 12, "predictor_depth": 1, "min_keep": 2},
    "iGPT": {"head_dim": 8, "head_depth": 1, "feature_layers": 1},
    "LeJEPA": {"projector_dims": (8, 4), "n_slices": 8},
    "MAE": DECODER,
    "MaskFeat": {"hog_cell": 4},
    "MIMRefiner": {"num_heads": 2, "projector_dims": (8, 4), "predictor_hidden_dim": 8,
                   "queue_length": 16, "top_k": 1},
    "MoCov2": {"projector_dims": (8, 4), "queue_length": 16},
    "MoCov3": {"projector_dims": (8, 8, 4), "predictor_hidden_dim": 8},
    "MSN": {"n_prototypes": 6, "projector_hidden_dim": 8, "projector_dim": 4},
    "NEPA": {},
    "NNCLR": {"projector_dims": (8, 8, 4), "predictor_hidden_dim": 8, "queue_length": 16},
    "PIRL": {"num_samples": 8, "projector_dim": 4},
    "SALT": {"predictor_embed_dim": 12, "predictor_depth": 1, "predictor_num_heads": 2},
    "SigLIP": {"text_width": 8, "text_depth": 1, "text_heads": 2},
    "SimCLR": {"projector_dims": (8, 4)},
    "SimMIM": {"mask_size": 4},
    "SimSiam": {"projector_dim": 8, "predictor_hidden_dim": 4},
    "SwAV": {"projector_dims": (8, 4), "n_prototypes": 6},
    "TiCO": {"projector_dims": (8, 4)},
    "VICReg": {"projector_dims": (8, 4)},
    "VICRegL": {"projector_dims": (8, 4), "map_dims": (8, 4), "num_matches": (2, 1)},
    "VJEPA": {"num_frames": 2, "predictor_embed_dim": 12, "predictor_depth": 1,
              "predictor_num_heads": 2},
    "WMSE": {"projector_dims": (8, 2), "w_size": 4},
}  # fmt: skip
VIT = {
    "image_size": 16,
    "encoder_kwargs": {"patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2},
}
# what a method asks of its transformer beyond that
PATCHES_ALONE = {"class_token": False, "global_pool": "avg", "fc_norm": False}
MASKED = (
    "BEiT",
    "CMAE",
    "CrossMAE",
    "Data2Vec",
    "DINOv3",
    "iBOT",
    "IJEPA",
    "MAE",
    "MaskFeat",
    "SimMIM",
)
ONE_IMAGE = ("BEiT", "CrossMAE", "Data2Vec", "DeiT", "IJEPA", "iGPT", "MAE", "MaskFeat", "NEPA", "SALT",
             "SimMIM")  # fmt: skip
ENCODERS = {
    "DINOv3": {"embed_dim": 16},
    "iGPT": PATCHES_ALONE,
    "MIMRefiner": {"depth": 2},
    "SALT": PATCHES_ALONE,
}
SHARDS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")  # torch 2.6 does not


class Given(nn.Module):
    """A function in a module's place: what is drawn is the same for both sides."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


class RowsOf(nn.Module):
    """One rank's rows of the masks of a whole batch of 8 images, whatever the number of views."""

    def __init__(self, masking, rows):
        super().__init__()
        self.masking, self.rows = masking.train(), rows
        masking.next_generator = lambda device, shared=False: torch.Generator().manual_seed(5)

    def forward(self, size, *rest):
        mine = len(range(8)[self.rows])
        if isinstance(size, torch.Tensor):
            views = len(size) // mine
            drawn = self.masking(size.new_empty(views * 8, *size.shape[1:]), *rest)
        else:
            views = size // mine
            drawn = self.masking(views * 8, *rest)
        if isinstance(drawn, torch.Tensor):
            return self._mine(drawn, views)
        parts = [self._mine(part, views) for part in drawn]
        return drawn._make(parts) if hasattr(drawn, "_make") else tuple(parts)

    def _mine(self, drawn, views):
        dim = 0 if len(drawn) == views * 8 else 1  # I-JEPA's targets are block by block
        of_rank = drawn.movedim(dim, 0).unflatten(0, (views, 8))[:, self.rows].flatten(0, 1)
        return of_rank.movedim(0, dim)


def prefix_of(rows):
    """What ``RandomPrefix`` gives, for lengths that both sides know."""
    lengths = torch.arange(1, 9)[rows]
    next_place = torch.arange(1, 17)
    places = ((next_place >= lengths[:, None]) & (next_place < 16)).flatten().nonzero().flatten()
    return Given(lambda size, length, device: (lengths, places))


def views():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(4, 8, 3, 16, 16, generator=generator, dtype=torch.float64)


def batch_of(name, rows):
    images = views()[:, rows]
    places = torch.rand(2, 8, 4, 4, 2, generator=torch.Generator().manual_seed(4))[:, rows]
    if name in ("DINO", "DINOv2", "DINOv3", "iBOT", "LeJEPA", "MIMRefiner", "MSN", "SwAV"):
        large = {f"global_{i}": {"image": images[i]} for i in range(2)}
        return {**large, **{f"local_{i}": {"image": images[2 + i, :, :, :8, :8]} for i in range(2)}}
    if name in ("CLIP", "SigLIP"):
        return {"image": images[0], "text": [f"{i} dogs and {i * i} cats" for i in range(8)][rows]}
    if name == "VJEPA":
        return {"video": images[:2].transpose(0, 1)}
    if name in ONE_IMAGE:
        return {"image": images[0], "label": torch.arange(8)[rows] % 3}
    if name == "PIRL":
        return {"image": images[0], "sample_idx": torch.arange(8)[rows]}
    return [{"image": images[i], "locations": places[i].double()} for i in range(2)]


def build(name, rows):
    """The method in evaluation mode: no sampling, no statistics of one rank's batch."""
    torch.manual_seed(0)
    encoder = "vit_tiny_patch16_dinov3_qkvb" if name == "DINOv3" else "vit_tiny_patch16_224"
    sizes = {**VIT["encoder_kwargs"], **ENCODERS.get(name, {})}
    settings = {**VIT, "encoder_kwargs": sizes, **METHODS[name]}
    if name == "BEiT":
        settings["tokenizer"] = backbones.RandomProjectionTokenizer(6, patch_size=4)
    if name == "SALT":
        settings["teacher"] = backbones.ViTTokens("vit_tiny_patch16_224", img_size=16, **sizes)
    module = getattr(methods, name)(encoder, **settings).double().eval()
    torch.manual_seed(1)
    with torch.no_grad():  # teachers that differ from their students, spread features
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    if name == "DINOv2":
        masks = torch.rand(2, 8, 16, generator=torch.Generator().manual_seed(5)) < 0.3
        module.masking = Given(lambda size, grid: masks[:, rows].flatten(0, 1))
    if name in MASKED:
        module.masking = RowsOf(module.masking, rows)
    if name in ("SALT", "VJEPA"):
        module.maskings = nn.ModuleList(RowsOf(masking, rows) for masking in module.maskings)
    if name == "iGPT":
        module.prefix = prefix_of(rows)
    if name == "PIRL":
        module.jigsaw = Given(
            lambda x: torch.stack([x[:, :, i : i + 8, :8] for i in range(9)], dim=1)
        )
    return module


def gradients(name, rows):
    module = build(name, rows)
    loss = module(batch_of(name, rows), "fit")["loss"]
    loss.backward()
    found = {"loss": loss.detach()}
    for key, parameter in module.named_parameters():
        if parameter.grad is not None:
            found[key] = parameter.grad
    return found


def averaged(found):
    for key in sorted(found):
        dist.all_reduce(found[key])
        found[key] /= dist.get_world_size()
    return found


class Count(pl.Callback):
    """How often gradients are exchanged."""

    def __init__(self):
        self.calls = 0

    def on_train_start(self, trainer, pl_module):
        if isinstance(trainer.strategy, DDPStrategy):
            trainer.strategy.model.register_comm_hook(None, self._hook)

    def _hook(self, state, bucket):
        self.calls += 1
        work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return work.then(lambda done: done.value()[0] / dist.get_world_size())


def regress(self, batch, stage):
    out = self.head(torch.tanh(self.backbone(batch["x"]))) * self.scale
    return {"loss": (out.sum(1) - 1).square().mean()}


def train(folder, several, batch_size, clip=0.5, **kwargs):
    torch.manual_seed(0)
    sgd = {"optimizer": {"type": "SGD", "lr": 0.1}, "scheduler": None, "gradient_clip_val": clip}
    optim = {**sgd, "frequency": 2}
    if several:
        optim = {"a": {**optim, "modules": "backbone"}, "b": {**sgd, "frequency": 4}}
    module = Module(
        forward=regress, backbone=nn.Linear(4, 3), head=nn.Linear(3, 2), optim=optim,
        scale=nn.Parameter(torch.ones(())),  # under FSDP2 it stays whole
    )  # fmt: skip
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    count = Count()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[count], use_distributed_sampler=False, **kwargs,
    )  # fmt: skip
    data = [{"x": r} for r in rows]
    sampler = DistributedSampler(data, shuffle=False) if dist.is_initialized() else None
    loader = DataLoader(data, batch_size=batch_size, sampler=sampler)  # an odd number of batches
    trainer.fit(module, loader)
    state = {
        k: (v.full_tensor() if hasattr(v, "full_tensor") else v).clone()
        for k, v in module.state_dict().items()
    }
    return {"state": state, "exchanges": count.calls, "steps": trainer.global_step}


def main(rank, port, folder):
    torch.set_num_threads(1)
    alone = rank < 0
    rows = slice(None) if alone else slice(4 * rank, 4 * rank + 4)
    kwargs = {}
    if not alone:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), LOCAL_RANK=str(rank),
            WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0", TORCHELASTIC_RUN_ID="test",
        )  # fmt: skip
        dist.init_process_group("gloo")
        kwargs = {"strategy": "ddp", "devices": 2}
    results = {}
    for name in METHODS:
        found = gradients(name, rows)
        results[name] = found if alone else averaged(found)
    for several in (False, True):
        results[f"run {several}"] = train(folder, several, 4 if alone else 2, **kwargs)
        if not alone and SHARDS_ON_CPU:
            sharded = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
            results[f"sharded {several}"] = train(folder, several, 2, strategy=sharded, devices=2)
            sharded = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
            results[f"trainer's clip {several}"] = train(
                folder, several, 2, None, strategy=sharded, devices=2, gradient_clip_val=0.5
            )
    if rank <= 0:
        torch.save(results, Path(folder) / ("one.pt" if alone else "two.pt"))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
