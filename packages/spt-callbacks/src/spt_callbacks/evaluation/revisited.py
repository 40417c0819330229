"""Average precision of image retrieval with junk images, as on revisited Oxford and Paris.

Radenović et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval Benchmarking", CVPR 2018
(https://arxiv.org/abs/1803.11285); the rules of its official code
(https://github.com/filipradenovic/revisitop). DINO reports Medium and Hard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PROTOCOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
    "all": (("relevant",), ("ignored",)),
}
"""Lists of a query that count as relevant, and lists that leave its ranking, by protocol."""

Relevance = Mapping[str, Sequence[int]]


def places_of(
    ranking: Sequence[int], relevant: Sequence[int], ignored: Sequence[int] = ()
) -> list[int]:
    """Places of the relevant images, from 0, once the ignored ones have left the ranking.

    Args:
        ranking: Images, the best first.
        relevant: Relevant images.
        ignored: Images that neither help nor harm.

    Example:
        >>> places_of([5, 8, 3, 1], relevant=[3, 5], ignored=[8])
        [0, 1]
    """
    positives, junk = set(relevant), set(ignored)
    kept = (image for image in ranking if image not in junk)
    return [place for place, image in enumerate(kept) if image in positives]


def average_precision(places: Sequence[int], num_relevant: int) -> float:
    """Area under the precision-recall curve by the trapezoid rule.

    Args:
        places: Places of the relevant images that were found, from 0, ascending.
        num_relevant: How many there are; those that were not found count as lost.

    Raises:
        ValueError: If nothing is relevant.

    Example:
        >>> average_precision([0, 1], 2)
        1.0
    """
    if num_relevant < 1:
        raise ValueError("`num_relevant` must be >= 1, got 0: such a query has no precision.")
    area = 0.0
    for found, place in enumerate(places):
        before = found / place if place else 1.0
        area += (before + (found + 1) / (place + 1)) / (2 * num_relevant)
    return area


def precision_at(places: Sequence[int], k: int) -> float:
    """Share of relevant images among the first ``k``, or up to the last relevant one if that is sooner.

    Args:
        places: Places of the relevant images, from 0, ascending.
        k: Cut-off.
    """
    if not places:
        return 0.0
    cut = min(places[-1] + 1, k)
    return sum(place < cut for place in places) / cut


def split_relevance(lists: Relevance, protocol: str) -> tuple[list[int], list[int]]:
    """Relevant and ignored images of a query under a protocol.

    Args:
        lists: ``easy``, ``hard`` and ``junk`` images; or ``relevant`` and ``ignored`` ones.
        protocol: ``"easy"``, ``"medium"``, ``"hard"``, or ``"all"`` for the latter form.

    Example:
        >>> split_relevance({"easy": [1], "hard": [2], "junk": [3]}, "hard")
        ([2], [3, 1])
    """
    relevant, ignored = PROTOCOLS[protocol]
    return (
        [image for part in relevant for image in lists.get(part, ())],
        [image for part in ignored for image in lists.get(part, ())],
    )


class RankingScores:
    """Mean average precision and mean precisions of the queries of one protocol."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, places: Sequence[int], num_relevant: int, ks: Sequence[int]) -> None:
        """Add a query.

        Args:
            places: Places of its relevant images, from 0, ascending.
            num_relevant: How many there are.
            ks: Cut-offs of the precision.
        """
        found = {"map": average_precision(places, num_relevant)}
        found |= {f"p{k}": precision_at(places, k) for k in ks}
        for name, value in found.items():
            self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The means over the queries: ``map``, ``p1``, ..."""
        return {name: sum(values) / len(values) for name, values in self.values.items()}
