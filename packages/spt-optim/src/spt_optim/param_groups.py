"""What kind each parameter is, and the groups of parameters with and without weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

ParameterKind = Literal["weight", "bias", "norm", "position", "token"]

NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
"""Module types whose own parameters take no weight decay."""

POSITIONS = frozenset({"pos_embed", "position_embedding", "position_embeddings", "pos_embedding"})
TOKENS = frozenset(
    {
        "cls_token",
        "class_token",
        "dist_token",
        "mask_token",
        "reg_token",
        "register_tokens",
        "storage_tokens",
    }
)


def is_bias_or_norm_param(name: str, p: Tensor) -> bool:
    """Whether a parameter is a bias, a norm's gain or a lone scale, judged without its module.

    Args:
        name: Qualified name.
        p: The parameter.

    Example:
        >>> import torch
        >>> is_bias_or_norm_param("head.bias", torch.zeros(3))
        True
        >>> is_bias_or_norm_param("normal_proj.weight", torch.zeros(3, 3))
        False
    """
    return p.ndim <= 1 or name.rpartition(".")[2] == "bias"


def parameter_kinds(module: nn.Module) -> dict[str, ParameterKind]:
    """The kind of every parameter of a module, by the type of the layer that holds it.

    ``"norm"``: a parameter of a normalisation layer. ``"bias"``: named so, or with at most one
    dimension (LayerScale, a lone scale). ``"position"`` and ``"token"``: position embeddings,
    class, register and mask tokens, by their last name. ``"weight"``: everything else.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm((2, 2)))
        >>> list(parameter_kinds(net).values())
        ['weight', 'bias', 'norm', 'norm']
    """
    kinds: dict[str, ParameterKind] = {}
    for prefix, layer in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, p in layer.named_parameters(recurse=False):
            kinds[dot + name] = "norm" if isinstance(layer, NORM_LAYERS) else kind_of(dot + name, p)
    return kinds


def kind_of(name: str, p: Tensor) -> ParameterKind:
    """The kind of a parameter whose layer is not known."""
    last = name.removesuffix(".weight").rpartition(".")[2]
    if last in POSITIONS:
        return "position"
    if last in TOKENS:
        return "token"
    return "bias" if is_bias_or_norm_param(name, p) else "weight"


def undecayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters that common practice leaves without weight decay.

    Every kind but ``"weight"`` of :func:`parameter_kinds`, and what a submodule's own
    ``no_weight_decay()`` names.
    """
    names = {name for name, kind in parameter_kinds(module).items() if kind != "weight"}
    for prefix, layer in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        own = getattr(layer, "no_weight_decay", None)
        if callable(own):
            names |= {dot + name for name in own()}
    return names


def split_params_for_weight_decay(
    named_params: Iterable[tuple[str, Tensor]],
    weight_decay: float | None = None,
    *,
    module: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Two parameter groups, with and without weight decay; frozen parameters are left out.

    Args:
        named_params: Parameters with their names.
        weight_decay: Decay of the first group, at least 0; without it, the optimizer's own.
        module: Where the parameters come from; layers' types then decide, see
            :func:`undecayed_names`. Without it, names and dimensions do.

    Raises:
        ValueError: If no parameter is trainable.
    """
    free = undecayed_ids(module) if module is not None else set()
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, p in named_params:
        if p.requires_grad:
            undecayed = id(p) in free or kind_of(name, p) != "weight"
            (plain if undecayed else decayed).append(p)
    if not decayed and not plain:
        raise ValueError("There is no trainable parameter; all have `requires_grad=False`.")
    first: dict[str, Any] = {"params": decayed}
    if weight_decay is not None:
        first["weight_decay"] = weight_decay
    groups = [first, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def undecayed_ids(module: nn.Module) -> set[int]:
    """Identities of the parameters of :func:`undecayed_names`."""
    names = undecayed_names(module)
    return {id(p) for name, p in module.named_parameters() if name in names}


def split_groups(
    params: Iterable[Any], ids: set[int], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Move some parameters of each group to a group of its own with other options.

    Args:
        params: Parameters or parameter groups.
        ids: Identities of the parameters to move.
        options: What their groups set.
    """
    groups: list[dict[str, Any]] = []
    for group in as_groups(params):
        rest = {key: value for key, value in group.items() if key != "params"}
        kept = [p for p in group["params"] if id(p) not in ids]
        moved = [p for p in group["params"] if id(p) in ids]
        groups += [{**rest, "params": kept}] if kept else []
        groups += [{**rest, **options, "params": moved}] if moved else []
    return groups


def as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Parameters, named parameters or groups of them, as groups of parameters."""
    items: list[Any] = _listed(params)
    if items and not isinstance(items[0], Mapping):
        items = [{"params": items}]
    return [{**group, "params": [_bare(p) for p in _listed(group["params"])]} for group in items]


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, Tensor) else list(params)


def _bare(p: Any) -> Any:
    return p[1] if isinstance(p, tuple) else p
