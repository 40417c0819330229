"""Conditions as text, ``"summary.acc > 0.8 and hparams.optim.lr == 0.1"``, made into SQL.

The text is parsed as a Python expression, of which only comparisons of fields with constants,
``and``, ``or`` and ``not`` are allowed. Every name is looked up in a list, every value and every
key is bound as a parameter; no part of the text becomes SQL.
"""

from __future__ import annotations

import ast
import re
from typing import Any, NamedTuple

MAX_LENGTH = 2000
PLAIN_KEY = re.compile(r"[ !#-\[\]-~]+")  # SQLite takes these in a quoted JSON path as they are
FIELDS = {
    "run_id": "run_id",
    "status": "now_status",
    "alive": "alive",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "ended_at": "ended_at",
    "notes": "notes",
    "path": "path",
    "tags": "tags",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.NotEq: "<>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


class Clause(NamedTuple):
    """A piece of SQL and the values of its question marks."""

    sql: str
    values: tuple[Any, ...] = ()


def field(name: str) -> Clause:
    """The value of a field, of ``summary.K`` or ``hparams.K``, or of the metric ``name``."""
    for prefix in ("summary", "hparams"):
        if name.startswith(f"{prefix}."):
            return _member(prefix, name[len(prefix) + 1 :])
    return Clause(FIELDS[name]) if name in FIELDS else _member("summary", name)


def _member(column: str, key: str) -> Clause:
    if PLAIN_KEY.fullmatch(key):
        return Clause(f"json_extract({column}, ?)", (f'$."{key}"',))
    return Clause(f"(SELECT value FROM json_each({column}) WHERE key = ?)", (key,))


def has_tag(tag: str) -> Clause:
    """Whether a run has a tag, to the letter."""
    return Clause("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", (tag,))


def parse(text: str) -> Clause:
    """A condition as SQL.

    Args:
        text: Such as ``status == "completed" and (acc > 0.8 or "best" in tags)``. Names of
            metrics may hold dots and slashes; any other key stands in brackets,
            ``hparams["weight-decay"]``. A run without the value fits no comparison.

    Raises:
        ValueError: If the text is anything else.

    Example:
        >>> parse("hparams.lr >= 0.1").values
        ('$."lr"', 0.1, '$."lr"', 0.1)
    """
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"it has {len(text)} characters, more than {MAX_LENGTH}")
        return _condition(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = (
            error.msg if isinstance(error, SyntaxError) else str(error) or "it nests too deeply"
        )
        raise ValueError(
            f"`where` must be comparisons joined by and, or, not, such as "
            f"'summary.acc > 0.8 and \"best\" in tags'; got {text[:200]!r}: {reason}."
        ) from error


def _condition(node: ast.expr) -> Clause:
    if isinstance(node, ast.BoolOp):
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        parts = [_condition(value) for value in node.values]
        return Clause(f"({word.join(p.sql for p in parts)})", sum((p.values for p in parts), ()))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _condition(node.operand)
        return Clause(f"(NOT coalesce({inner.sql}, 0))", inner.values)
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        pairs = zip(operands, node.ops, operands[1:], strict=False)
        parts = [_comparison(left, op, right) for left, op, right in pairs]
        return Clause(f"({' AND '.join(p.sql for p in parts)})", sum((p.values for p in parts), ()))
    if _name(node) == "alive":
        return Clause("alive")
    raise ValueError(f"{ast.unparse(node)!r} is no comparison")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Clause:
    if isinstance(op, (ast.In, ast.NotIn)):
        inner = _membership(left, right)
        return inner if isinstance(op, ast.In) else Clause(f"(NOT {inner.sql})", inner.values)
    if isinstance(op, (ast.Is, ast.IsNot)):
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise ValueError("`is` compares with None only")
        inner = _operand(left)
        return Clause(
            f"({inner.sql} {'IS' if isinstance(op, ast.Is) else 'IS NOT'} NULL)", inner.values
        )
    a, b = _operand(left), _operand(right)
    sql = COMPARISONS[type(op)]
    if isinstance(op, (ast.Eq, ast.NotEq)):
        return Clause(f"({a.sql} {sql} {b.sql})", a.values + b.values)
    same = f"(typeof({a.sql}) = 'text') = (typeof({b.sql}) = 'text')"  # "nan" is above no number
    return Clause(f"({same} AND {a.sql} {sql} {b.sql})", (a.values + b.values) * 2)


def _membership(left: ast.expr, right: ast.expr) -> Clause:
    if isinstance(right, (ast.Tuple, ast.List)):
        a, items = _operand(left), [_constant(item) for item in right.elts]
        return Clause(f"({a.sql} IN ({', '.join('?' * len(items))}))", (*a.values, *items))
    needle, name = _constant(left), _name(right)
    if not isinstance(needle, str) or name is None:
        raise ValueError(f"{ast.unparse(left)!r} in {ast.unparse(right)!r} is not understood")
    if name == "tags":
        return has_tag(needle)
    b = field(name)
    return Clause(f"coalesce(instr({b.sql}, ?) > 0, 0)", (*b.values, needle))


def _operand(node: ast.expr) -> Clause:
    name = _name(node)
    if name == "tags":
        raise ValueError("tags are asked for by '\"name\" in tags'")
    return Clause("?", (_constant(node),)) if name is None else field(name)


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand)
        if isinstance(value, str):
            raise ValueError(f"{ast.unparse(node)!r} is no number")
        return -value
    if not isinstance(node, ast.Constant) or not isinstance(node.value, (str, int, float)):
        raise ValueError(f"{ast.unparse(node)!r} is neither a field nor a number or string")
    if isinstance(node.value, str):
        return node.value.encode("utf-8").decode()  # refuses lone surrogates
    return node.value if abs(node.value) < 2**63 else float(node.value)


def _name(node: ast.expr) -> str | None:
    """The field a node names: ``a.b``, ``a/b``, ``hparams["any key"]``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _name(node.value)
        return None if left is None else f"{left}.{node.attr}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left, right = _name(node.left), _name(node.right)
        return None if left is None or right is None else f"{left}/{right}"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        left, key = _name(node.value), node.slice.value
        if left in ("hparams", "summary") and isinstance(key, str):
            return f"{left}.{key}"
    return None
