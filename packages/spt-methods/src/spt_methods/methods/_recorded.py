"""A constructor's arguments as hyper-parameters, without naming them twice."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

GIVEN = "_given"
ELSEWHERE = ("optim", "hparams")  # recorded by themselves


def recording(init: Callable[..., None], base: type) -> Callable[..., None]:
    """The same constructor; it first notes its arguments for :func:`taken`, defaults included.

    Of constructors that call each other all are noted; the outer one's word counts. A keyword that
    none of them has, down to that of ``base``, is refused.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        if GIVEN not in vars(self):  # the outermost
            kwargs = from_record(signature, args, kwargs)
            check_names(type(self), base, kwargs)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:  # the constructor says it better
            init(self, *args, **kwargs)
            raise
        bound.apply_defaults()
        vars(self)[GIVEN] = {**_named(bound), **vars(self).get(GIVEN, {})}
        init(self, *args, **kwargs)

    return noting


def from_record(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Keyword arguments as Lightning's ``load_from_checkpoint`` gives them, as the constructor takes them.

    A recorded encoder's name is the first argument, unless there is one; the name of the method is
    the class.
    """
    if "method" not in kwargs:
        return kwargs
    given = {name: value for name, value in kwargs.items() if name not in ("method", "encoder")}
    encoder = list(signature.parameters)[1]
    if not args and "encoder" in kwargs:
        given.setdefault(encoder, kwargs["encoder"])
    return given


def check_names(kind: type, base: type, names: Iterable[str]) -> None:
    """Refuse keyword arguments that no constructor from a class down to its base has.

    Raises:
        TypeError: If there is one; it names the near ones.
    """
    own = [
        vars(c)["__init__"] for c in kind.__mro__ if issubclass(c, base) and "__init__" in vars(c)
    ]
    known = {name for init in own for name in inspect.signature(init).parameters}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise TypeError(f"{kind.__name__} has no argument {name!r}.{hint}")


def _named(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, those of ``**kwargs`` too; without ``self`` and the encoder, the first."""
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[2:]:
        given |= value if kinds[name] is inspect.Parameter.VAR_KEYWORD else {name: value}
    return given


def taken(method: Any) -> dict[str, Any]:
    """What :func:`recording` noted, as plain values."""
    given: dict[str, Any] = vars(method).pop(GIVEN, {})
    return {name: plain(value) for name, value in given.items() if name not in ELSEWHERE}


def plain(value: Any) -> Any:
    """Numbers, strings and containers of them; of anything else the name of its class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return type(value).__name__
