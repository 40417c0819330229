"""List each public name of every package with its signature, as ``tests/public_api.txt`` holds it.

``python tools/public_api.py > tests/public_api.txt`` after a deliberate change of the API.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any

ROOMS = (
    "spt_augment",
    "spt_augment.recipes",
    "spt_callbacks",
    "spt_callbacks.utils",
    "spt_data",
    "spt_data.recipes",
    "spt_data.synthetic_data",
    "spt_data.transforms",
    "spt_jax",
    "spt_jax.augment",
    "spt_jax.backbone",
    "spt_jax.callbacks",
    "spt_jax.forward",
    "spt_jax.losses",
    "spt_jax.methods",
    "spt_jax.optim",
    "spt_losses",
    "spt_manager",
    "spt_methods",
    "spt_methods.backbones",
    "spt_methods.backbones.video",
    "spt_methods.forward",
    "spt_methods.masking",
    "spt_methods.methods",
    "spt_optim",
    "spt_registry",
    "spt_registry.run",
    "stable_pretraining",
    "stable_pretraining.pictures",
)


def public_names(module: types.ModuleType) -> list[str]:
    """``__all__`` where there is one, else what is not private and not a foreign module."""
    names = getattr(module, "__all__", None) or dir(module)
    package = module.__name__.split(".")[0]
    return sorted(
        name
        for name in names
        if not name.startswith("_")
        and name != "annotations"
        and getattr(getattr(module, name), "__module__", package).split(".")[0] == package
        and not isinstance(getattr(module, name), types.ModuleType)
    )


def signature(value: Any) -> str:
    """The parameters with their defaults; addresses of objects are left out."""
    if isinstance(value, type) and issubclass(value, BaseException):
        return ": exception"
    try:
        text = str(inspect.signature(value.__init__ if isinstance(value, type) else value))
    except (TypeError, ValueError):
        return f": {type(value).__name__}"
    # some libraries put an annotated function in the place of `nn.Module.__init__`
    text = re.sub(r"^\(self(: [\w.]+)?(, |(?=\)))", "(", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def lines() -> Iterator[str]:
    """One line a name: ``package.name(parameters)``."""
    for name in ROOMS:
        module = importlib.import_module(name)
        for public in public_names(module):
            yield f"{name}.{public}{signature(getattr(module, public))}"


if __name__ == "__main__":
    print("\n".join(lines()))
