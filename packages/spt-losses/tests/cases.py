"""One small problem for each loss; run as a program, one rank of a process group.

``conftest.py`` gives the cases to the tests. ``test_contract.py`` asks each for what all losses have
in common, ``test_distributed.py`` compares ranks with one process.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable

import spt_losses as sl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROWS = 8
WIDTH = 6


@dataclasses.dataclass(frozen=True)
class Input:
    """A tensor that a loss reads: ``rows`` is the dimension split over ranks, if it is."""

    value: Tensor
    rows: int | None = 0
    grad: bool = True


@dataclasses.dataclass(frozen=True)
class Case:
    """A loss with its inputs, made anew for each use."""

    name: str
    loss: Callable[[], Callable[..., Tensor]]
    inputs: Callable[[torch.Generator], list[Input]]
    unequal: bool = True  # ranks may hold batches of different size
    degenerate: bool = True  # finite on constant and zero inputs
    held: tuple[int, ...] = ()  # inputs that also make targets, through which no gradient flows
    compiles: bool = True  # the case itself, around the loss, breaks no graph


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def rows(number: int, constant: int = 0) -> Callable[[torch.Generator], list[Input]]:
    """Rows that get a gradient, and then rows that the loss detaches."""
    return lambda g: [
        Input(normal(g, ROWS, WIDTH), grad=index < number) for index in range(number + constant)
    ]


class WithScale(nn.Module):
    """A loss with a learnable multiplier."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss
        self.scale = sl.LogitScale(4.0).double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.loss(a, b, logit_scale=self.scale())


def info_nce(a: Tensor, b: Tensor) -> Tensor:
    counts = torch.zeros(8, dtype=torch.int64)
    before = 0
    if dist.is_initialized():
        counts[dist.get_rank()] = len(a)
        dist.all_reduce(counts)
        before = int(counts[: dist.get_rank()].sum())
    targets = before + torch.arange(len(a))
    return sl.InfoNCELoss(0.3)(a, sl.gather_rows(b), targets)


class NeighboursOfConstants(nn.Module):
    """NNCLR, whose first two inputs get no gradient."""

    def __init__(self):
        super().__init__()
        self.loss = sl.NNCLRLoss(20, WIDTH).double()

    def forward(self, p_i: Tensor, p_j: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
        return self.loss(z_i, z_j, p_i, p_j)


def vicregl(z_i: Tensor, z_j: Tensor, *local: Tensor) -> Tensor:
    return sl.vicregl_loss([z_i, z_j], local[:2], local[2:], num_matches=(3, 2))


def local_views(g: torch.Generator) -> list[Input]:
    wide = [Input(normal(g, ROWS, 3)) for _ in range(2)]
    maps = [Input(normal(g, ROWS, 4, 2)) for _ in range(2)]
    locations = [Input(normal(g, ROWS, 2, 2, 2), grad=False) for _ in range(2)]
    return [*wide, *maps, *locations]


def with_index(g: torch.Generator) -> list[Input]:
    index = torch.tensor([3, 11, 0, 19, 4, 3, 12, 7])  # one image comes twice
    return [*rows(2)(g), Input(index, grad=False)]


class Dino(nn.Module):
    """Four crops of the student against two of the teacher, whose centre moves."""

    def __init__(self, sinkhorn: bool = False):
        super().__init__()
        self.loss = sl.DINOv1Loss()
        self.sinkhorn = sinkhorn

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        make = (
            self.loss.sinkhorn_knopp_teacher if self.sinkhorn else self.loss.softmax_center_teacher
        )
        return self.loss(student, make(teacher, 0.5))


def crops(g: torch.Generator) -> list[Input]:
    return [Input(normal(g, 4, ROWS, WIDTH), 1), Input(normal(g, 2, ROWS, WIDTH), 1, grad=False)]


class Ibot(nn.Module):
    """Masked patches, whose number differs between images; one image has none."""

    def __init__(self):
        super().__init__()
        self.loss = sl.iBOTPatchLoss()

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        targets = self.loss.softmax_center_teacher(teacher[mask], 0.5)
        return self.loss(student[mask], targets, mask)


def patches(g: torch.Generator) -> list[Input]:
    both = [Input(normal(g, ROWS, 5, WIDTH), grad=grad) for grad in (True, False)]
    mask = torch.arange(5) < torch.tensor([2, 0, 5, 1, 3, 1, 4, 2])[:, None]
    return [*both, Input(mask, grad=False)]


class Dinov2(nn.Module):
    """Class tokens, two masked patches in each image, and features."""

    def __init__(self):
        super().__init__()
        self.loss = sl.DINOv2Loss()

    def forward(self, student: Tensor, teacher: Tensor, patches: Tensor, theirs: Tensor) -> Tensor:
        make = self.loss.dino_loss.softmax_center_teacher
        make_patch = self.loss.ibot_loss.sinkhorn_knopp_teacher
        masked, targets = patches[:, :2].flatten(0, 1), make_patch(theirs[:, :2].flatten(0, 1), 0.5)
        mask = (torch.arange(3) < 2).expand(len(patches), -1)
        return self.loss(student, make(teacher, 0.5), masked, targets, mask, student[:2])


class Msn(nn.Module):
    """Two masked views, targets and prototypes."""

    def __init__(self):
        super().__init__()
        self.loss = sl.MSNLoss(ent_weight=0.3, label_smoothing=0.1)

    def forward(self, first: Tensor, second: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # which cannot concatenate float16 on a CPU
            anchors = torch.cat([first, second])
        return self.loss(anchors, targets, prototypes)


class Swav(nn.Module):
    """Two large crops, a small one, and a queue of earlier features."""

    def __init__(self):
        super().__init__()
        self.loss = sl.SwAVLoss()

    def forward(self, a: Tensor, b: Tensor, c: Tensor, queue: Tensor, prototypes: Tensor) -> Tensor:
        return self.loss(a, b, prototypes, queue, [c])


def with_prototypes(
    inputs: Callable[[torch.Generator], list[Input]],
) -> Callable[[torch.Generator], list[Input]]:
    return lambda g: [*inputs(g), Input(normal(g, 4, WIDTH), rows=None)]


def pixels(g: torch.Generator) -> list[Input]:
    mask = torch.tensor([2, 0, 4, 1, 3, 1, 4, 2])[:, None] > torch.arange(4)
    images = Input(normal(g, ROWS, 3, 4, 4), grad=False)
    return [Input(normal(g, ROWS, 4, 12)), images, Input(mask, grad=False)]


def pixel_error(**settings) -> Callable[[], nn.Module]:
    return lambda: sl.MAELoss(patch_size=2, **settings)


def tokens(g: torch.Generator) -> list[Input]:
    return [Input(normal(g, ROWS, 5, WIDTH), grad=grad) for grad in (True, False)]


def crops_and_tokens(g: torch.Generator) -> list[Input]:
    student, teacher = (dataclasses.replace(x, value=x.value[..., :3]) for x in crops(g))
    patches = [dataclasses.replace(x, value=x.value[:, :3, :3]) for x in tokens(g)]
    return [student, teacher, *patches]


def three_views(g: torch.Generator) -> list[Input]:
    return [Input(normal(g, 3, ROWS, WIDTH), 1)]


class Beit(nn.Module):
    """Tokens of all places."""

    def forward(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return sl.visual_token_loss(logits, tokens)


def places(g: torch.Generator) -> list[Input]:
    tokens = torch.arange(ROWS) % WIDTH
    return [*rows(1)(g), Input(tokens, grad=False)]


def prefixes(g: torch.Generator) -> list[Input]:
    images = Input(normal(g, ROWS, 3, 4, 4), grad=False)
    lengths = torch.tensor([1, 3, 2, 1, 1, 3, 2, 2])
    return [Input(normal(g, ROWS, 4, 12)), images, Input(lengths, grad=False)]


def mask_of_four(g: torch.Generator) -> Input:
    return Input(pixels(g)[2].value.view(ROWS, 2, 2), grad=False)


def both_images(g: torch.Generator) -> list[Input]:
    images = [Input(normal(g, ROWS, 3, 4, 4), grad=grad) for grad in (True, False)]
    return [*images, mask_of_four(g)]


def gradients_of_cells(g: torch.Generator) -> list[Input]:
    images = Input(normal(g, ROWS, 1, 8, 8), grad=False)
    return [Input(normal(g, ROWS, 4, 3)), images, pixels(g)[2]]


def aligned(predicted: Tensor, projected: Tensor, neighbours: Tensor) -> Tensor:
    return sl.nna_loss(projected, neighbours, predicted)


def three_and_two(g: torch.Generator) -> list[Input]:
    constant = [Input(normal(g, 2, ROWS, WIDTH), 1, grad=False) for _ in range(2)]
    return [*three_views(g), *constant]


CASES = [
    Case("ntxent", lambda: sl.NTXEntLoss(0.5), rows(2)),
    Case("ntxent_chunked", lambda: sl.NTXEntLoss(0.5, chunk_size=3), rows(2)),
    Case("info_nce", lambda: info_nce, rows(2), compiles=False),
    Case("clip", lambda: WithScale(sl.CLIPLoss()), rows(2)),
    Case("siglip", lambda: WithScale(sl.SigLIPLoss(logit_bias=-2.0)), rows(2)),
    Case("dcl", lambda: sl.DCLLoss(0.3), rows(2)),
    Case("dcl_weighted", lambda: sl.DCLLoss(0.3, sigma=0.5), rows(2)),
    Case("moco", lambda: sl.MoCoLoss(20, WIDTH).double(), rows(1, 1)),
    Case("moco_v3", lambda: sl.MoCoV3Loss(), rows(2, 2)),
    Case("nnclr", lambda: NeighboursOfConstants(), rows(2, 2)),
    Case("pirl", lambda: sl.PIRLLoss(20, WIDTH).double(), with_index),
    Case("byol", lambda: sl.BYOLLoss(), rows(2)),
    Case("negative_cosine", lambda: sl.NegativeCosineSimilarity(), rows(2)),
    Case("simsiam", lambda: sl.SimSiamLoss(), rows(2, 2)),
    Case("barlow_twins", lambda: sl.BarlowTwinsLoss(), rows(2)),
    Case("vcreg", lambda: sl.VCRegLoss(), rows(1)),
    Case("vicreg", lambda: sl.VICRegLoss(), rows(2)),
    Case("vicregl", lambda: vicregl, local_views),
    Case("swav", lambda: Swav(), with_prototypes(rows(3, 1)), held=(0, 1, 4)),
    Case("dino", lambda: Dino(), crops),
    Case("dino_sinkhorn", lambda: Dino(sinkhorn=True), crops),
    Case("ibot", lambda: Ibot(), patches, compiles=False),
    Case("dinov2", lambda: Dinov2(), crops_and_tokens),
    Case("koleo", lambda: sl.KoLeoLoss(), rows(1)),
    Case("koleo_top_k", lambda: sl.KoLeoLoss(top_k=3), rows(1)),
    Case("gram", lambda: sl.GramLoss(), tokens),
    Case("gram_batch", lambda: sl.GramLoss(img_level=False, remove_neg=True), tokens),
    Case("msn", lambda: Msn(), with_prototypes(rows(2, 1)), held=(3,)),
    Case("tico", lambda: sl.TiCoLoss(), rows(1, 1)),
    Case("wmse", lambda: sl.WMSELoss(w_size=8, w_iter=2), rows(2)),
    Case("sigreg", lambda: sl.SlicedEppsPulley(num_slices=7), rows(1)),
    Case("lejepa", lambda: sl.LeJEPALoss(num_slices=7), three_views),
    Case("mae", pixel_error(), pixels),
    Case("mae_sum", pixel_error(reduction="sum"), pixels),
    Case("mae_cosine", pixel_error(loss_type="cosine", mask_only=False), pixels),
    Case("simmim", lambda: sl.SimMIMLoss(), both_images),
    Case("maskfeat", lambda: sl.MaskFeatLoss(patch_size=4, bins=3, cell=4), gradients_of_cells),
    Case("data2vec", lambda: sl.Data2VecLoss(), rows(1, 1)),
    Case("ijepa", lambda: sl.IJEPALoss(), tokens),
    Case("vjepa", lambda: sl.VJEPALoss(), tokens),
    Case("nepa", lambda: sl.NEPALoss(), tokens),
    Case("aim", lambda: sl.AIMLoss(patch_size=2), prefixes),
    Case("beit", lambda: Beit(), places),
    Case("cmae", lambda: sl.CMAEContrastLoss(), rows(1, 1)),
    Case("nna", lambda: aligned, three_and_two),
    Case("mae_smooth_l1", pixel_error(loss_type="smooth_l1", patch_normalize=False), pixels),
]


def make_inputs(case: Case, seed: int = 0) -> list[Input]:
    return case.inputs(torch.Generator().manual_seed(seed))


def share(x: Input, counts: list[int], rank: int) -> Tensor:
    """A rank's part of an input."""
    return x.value if x.rows is None else x.value.split(counts, x.rows)[rank].contiguous()


def gradients(case: Case, counts: list[int], rank: int) -> list[Tensor]:
    """Loss, gradients of a shared encoder and of parameters, and state, for a rank's share."""
    torch.manual_seed(5)
    loss = case.loss()
    leaves, tensors = [], []
    for x in make_inputs(case):
        part = share(x, counts, rank)
        if x.grad and x.rows is not None:  # what an encoder puts out
            leaf = torch.eye(part.shape[-1], dtype=torch.float64) * 1.5
            leaf = (leaf + 0.1).requires_grad_()
            part = part @ leaf
            leaves.append(leaf)
        elif x.grad:
            part = part.clone().requires_grad_()
            leaves.append(part)
        tensors.append(part)
    if isinstance(loss, nn.Module):
        leaves += list(loss.parameters())
    value = loss(*tensors)
    grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return [value.detach(), *grads, *state(loss)]


def state(loss: Callable[..., Tensor]) -> list[Tensor]:
    buffers = loss.buffers() if isinstance(loss, nn.Module) else []
    return [x.detach().double().clone() for x in buffers]


class Traffic(TorchDispatchMode):
    """Counts the numbers that are handed to collectives."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            tensors = tree_leaves(args)
            self.numbers += sum(x.numel() for x in tensors if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))


def traffic(loss: Callable[..., Tensor], number: int) -> int:
    """Of one forward and backward with so many rows on this rank."""
    views = [torch.randn(number, WIDTH, requires_grad=True) for _ in range(2)]
    with Traffic() as counted:
        loss(*views).backward()
    return counted.numbers


def run_rank(rank: int, splits: list[list[int]], folder: str) -> None:
    """Every case under every split of the rows; the first rank writes the averages."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    for index, counts in enumerate(splits):
        if rank >= len(counts):
            continue
        where = f"file://{folder}/init{index}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=len(counts))
        results = {}
        for case in CASES:
            if case.unequal or len(set(counts)) == 1:
                results[case.name] = [average(x) for x in gradients(case, counts, rank)]
        for name in ("barlow_twins", "vicreg", "ntxent"):
            loss = next(case.loss for case in CASES if case.name == name)()
            results[f"{name} traffic"] = torch.tensor([traffic(loss, n) for n in (4, 32)])
        if rank == 0:
            torch.save(results, f"{folder}/split{index}.pt")
        dist.barrier()
        dist.destroy_process_group()


def average(x: Tensor) -> Tensor:
    """What DistributedDataParallel makes of a gradient."""
    dist.all_reduce(x)
    return x / dist.get_world_size()


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3])
