"""Several views of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spt_data._keys import copy_containers, read
from spt_data.datasets import Sample, Transform


class MultiViewTransform:
    """Several transforms of one sample: a list under ``views``, or one entry per name.

    Each transform gets its own containers around the same values: the image is decoded once.

    Args:
        transforms: A list of transforms, or a mapping of names to transforms.

    Raises:
        ValueError: If there is none.

    Example:
        >>> views = MultiViewTransform([lambda s: s, lambda s: {**s, "label": 1}])
        >>> views({"label": 0})
        {'views': [{'label': 0}, {'label': 1}]}
    """

    def __init__(self, transforms: Sequence[Transform] | Mapping[str, Transform]) -> None:
        if not transforms:
            raise ValueError("MultiViewTransform needs at least one transform, got none.")
        self.transforms = transforms

    def __call__(self, sample: Sample) -> Sample:
        """The views."""
        if isinstance(self.transforms, Mapping):
            return {
                name: transform(copy_containers(sample))
                for name, transform in self.transforms.items()
            }
        return {"views": [transform(copy_containers(sample)) for transform in self.transforms]}

    def __repr__(self) -> str:
        return f"MultiViewTransform({self.transforms!r})"


class RoundRobinMultiViewTransform:
    """One transform per view of a repeated row, chosen by ``view_idx``.

    It goes with ``RepeatedRandomSampler(..., n_views=V, pass_view_idx=True)``, which puts
    ``view_idx`` into the sample: nothing is counted, so any batch size and any number of workers
    give each row every view.

    Args:
        transforms: One per view.

    Raises:
        ValueError: If there is none; when called, if there is no transform for the view.
        KeyError: When called, if the sample has no ``view_idx``.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        if not transforms:
            raise ValueError("RoundRobinMultiViewTransform needs at least one transform, got none.")
        self.transforms = list(transforms)

    def __call__(self, sample: Sample) -> Sample:
        """Apply the view's transform."""
        name = type(self).__name__
        if "view_idx" not in sample:
            name += " (use RepeatedRandomSampler(..., pass_view_idx=True))"
        view = int(read(sample, "view_idx", name))
        if not 0 <= view < len(self.transforms):
            raise ValueError(
                f"RoundRobinMultiViewTransform has {len(self.transforms)} transforms, but the "
                f"sampler gave view {view}; `n_views` must be the number of transforms."
            )
        return self.transforms[view](sample)

    def __repr__(self) -> str:
        return f"RoundRobinMultiViewTransform({self.transforms!r})"
