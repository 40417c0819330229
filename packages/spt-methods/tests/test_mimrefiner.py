"""MIM-Refiner against the official queue and the paper's objective, written out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spt_losses import nna_loss
from spt_methods import methods
from spt_methods.methods.mimrefiner import NeighbourQueue
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

GOLDEN = Path(__file__).parent / "golden"
G = torch.Generator().manual_seed(0)
LARGE = torch.rand(2, 4, 3, 32, 32, generator=G, dtype=torch.float64)
SMALL = torch.rand(2, 4, 3, 16, 16, generator=G, dtype=torch.float64)
IDS = torch.arange(4)
CROPS = {f"global_{i}": {"image": LARGE[i], "label": IDS % 2, "sample_idx": IDS} for i in range(2)}
CROPS |= {f"local_{i}": {"image": SMALL[i]} for i in range(2)}
SIZES = {"num_heads": 2, "projector_dims": (10, 6), "predictor_hidden_dim": 9, "queue_length": 16,
         "top_k": 1}  # fmt: skip


def official(name):
    with np.load(GOLDEN / name) as file:
        return {k: torch.tensor(file[k]) for k in file.files}


def build(depth=3, **kwargs):
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=depth, num_heads=3, num_classes=0,
        dynamic_img_size=True,
    )  # fmt: skip
    return methods.MIMRefiner(vit, **{**SIZES, **kwargs}).double().train()


def test_the_queue_of_the_official_code():
    arrays = official("mim_refiner_nna.npz")
    queue = NeighbourQueue(20, 8, top_k=1).double().train()
    queue.rows.copy_(F.normalize(arrays["queue_before"].double(), dim=1))
    queue.ids.copy_(arrays["queue_idx_before"])
    queue.pointer.copy_(arrays["ptr_before"][0])
    views = arrays["queue_input"].double().view(2, 6, 8)
    found = queue.neighbours(views, arrays["sample_idx"]).flatten(0, 1)
    torch.testing.assert_close(found, F.normalize(arrays["neighbours"].double(), dim=1))
    queue.push_samples(views[0], arrays["sample_idx"])
    expected = F.normalize(arrays["queue_after"].double(), dim=1)
    torch.testing.assert_close(queue.rows, expected)
    assert torch.equal(queue.ids, arrays["queue_idx_after"])
    assert int(queue.pointer) == int(arrays["ptr_after"])


def test_the_loss_of_the_official_code_over_large_and_small_crops():
    arrays = official("mim_refiner_nna.npz")
    names = ("projected_preswap", "projected_postswap", "predicted")
    inputs = [arrays[name].double().transpose(0, 1) for name in names]
    loss = nna_loss(*inputs, temperature=float(arrays["temperature"]))
    torch.testing.assert_close(loss, arrays["loss_intended"], rtol=0, atol=1e-10)


def test_a_neighbour_is_one_of_the_nearest_and_never_the_image_itself():
    queue = NeighbourQueue(4, 2, top_k=2)
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [-1.0, 0.0]])
    queue.push_samples(rows, torch.tensor([7, 8, 9, 10]))
    z = torch.tensor([[[1.0, 0.0]]]).expand(1, 200, 2)
    near = {tuple(row.tolist()) for row in queue.neighbours(z)[0]}
    assert near == {tuple(row.tolist()) for row in F.normalize(rows, dim=1)[:2]}
    barred = queue.neighbours(z, torch.full((200,), 7))[0]
    near = {tuple(row.tolist()) for row in barred}
    assert near == {tuple(row.tolist()) for row in F.normalize(rows, dim=1)[1:3]}
    with pytest.raises(ValueError, match="between 1 and the queue's 4 rows, got 5"):
        NeighbourQueue(4, 2, top_k=5)


def test_each_head_aligns_the_class_tokens_of_its_block():
    module = build()
    queues = [head.queue.rows.clone() for head in module.heads]
    state = module(CROPS, "fit")
    after = [head.queue.rows.clone() for head in module.heads]
    vit = module.backbone.vit
    tokens = {0: [], 1: []}
    for crop in [*LARGE, *SMALL]:
        x = vit._pos_embed(vit.patch_embed(crop))
        for index, block in enumerate(vit.blocks):
            x = block(x)
            if index == 1:
                tokens[0].append(x[:, 0])
        tokens[1].append(vit.norm(x)[:, 0])
    torch.testing.assert_close(state["embedding"], torch.cat(tokens[1][:2]))
    for h, (head, rows) in enumerate(zip(module.heads, queues, strict=True)):
        z = head.projector(torch.cat(tokens[h]))
        p = F.normalize(head.predictor(z), dim=1).view(4, 4, 6)
        z = F.normalize(z, dim=1).view(4, 4, 6)
        total = 0.0
        for i in range(2):
            near = rows[(z[i] @ rows.T).argmax(1)]
            for j in range(4):
                if i != j:
                    logits = z[i] @ p[j].T / 0.2  # negatives are not swapped
                    positive = (near * p[j]).sum(1) / 0.2
                    logits = torch.where(torch.eye(4, dtype=torch.bool), positive, logits)
                    total = total + F.cross_entropy(logits, IDS)
        torch.testing.assert_close(state["head_losses"][h], total / 6)
        # the first view enters after the loss
        torch.testing.assert_close(after[h][:4], z[0])
        assert torch.equal(after[h][4:], rows[4:])
        assert head.queue.ids[:4].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(state["loss"], state["head_losses"].sum())
    assert torch.equal(state["label"], (IDS % 2).repeat(2))


@pytest.mark.parametrize(("blocks", "trained"), [(0, {0, 1, 2}), (2, {2}), (3, set())])
def test_lower_blocks_are_frozen_with_all_before_them(blocks, trained):
    module = build(freeze_lower_blocks=blocks)
    module(CROPS, "fit")["loss"].backward()
    named = dict(module.backbone.vit.named_parameters())
    moved = {name for name, p in named.items() if p.grad is not None}
    assert {int(name.split(".")[1]) for name in moved if name.startswith("blocks")} == trained
    assert ("patch_embed.proj.weight" in moved) == (blocks == 0)
    assert ("norm.weight" in moved) == (blocks < 3)
    assert all(p.grad is not None for p in module.heads.parameters())


def test_what_the_refiner_refuses():
    with pytest.raises(ValueError, match="between 1 and the encoder's 3 blocks, got 4"):
        build(num_heads=4)
    with pytest.raises(ValueError, match="between 0 and the encoder's 3 blocks, got 5"):
        build(freeze_lower_blocks=5)
    with pytest.raises(ValueError, match="MIM-Refiner needs an encoder that returns its class tok"):
        methods.MIMRefiner("vit_tiny_patch16_224", encoder_kwargs={"global_pool": "avg"})
