"""What a demo run hands to its report: features of the held-out images, and a fair judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    """One split of the bundled images.

    Attributes:
        images: ``(N, 1, H, W)`` float in [0, 1].
        labels: ``(N,)`` int64.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Outcome:
    """What a backend returns when its run has ended.

    Attributes:
        run_dir: Directory in which the run is recorded.
        trained: Features of the (train, test) images by the trained encoder.
        untrained: The same by the encoder as it was initialised.
    """

    run_dir: Path
    trained: tuple[Tensor, Tensor]
    untrained: tuple[Tensor, Tensor]


def load_split(split: Literal["train", "test"]) -> Split:
    """Read a bundled split into memory."""
    import torch
    from spt_data import sample_dataset, transforms

    dataset = sample_dataset(split, transform=transforms.ToImage())
    samples = [dataset[i] for i in range(len(dataset))]
    return Split(
        images=torch.stack([sample["image"] for sample in samples]),
        labels=torch.tensor([sample["label"] for sample in samples]),
    )


def knn_accuracy(
    features: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of the weighted kNN vote of Wu et al., 2018 (https://arxiv.org/abs/1805.01978).

    Args:
        features: Bank ``(N, D)`` and queries ``(M, D)``.
        labels: Their classes, ``(N,)`` and ``(M,)``.
        k: Neighbours that vote.
        temperature: A neighbour at cosine ``s`` weighs ``exp(s / temperature)``.

    Returns:
        Share of queries whose class wins the vote, in [0, 1].
    """
    import torch
    from torch.nn.functional import normalize

    bank, queries = (normalize(x.flatten(1).float(), dim=1) for x in features)
    similarity, index = (queries @ bank.T).topk(k, dim=1)  # (M, k)
    votes = torch.zeros(len(queries), int(labels[0].max()) + 1)
    votes.scatter_add_(1, labels[0][index], (similarity / temperature).exp())
    return float((votes.argmax(1) == labels[1]).float().mean())
