"""Run benchmarks by name: ``hatch run bench losses optim``; without a name, list them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def available() -> list[str]:
    """Names of the benchmark scripts of this folder."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def main(arguments: list[str]) -> None:
    """Run the named benchmarks one after the other; options go to each of them."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    unknown = sorted(set(names) - set(available()))
    if unknown:
        raise SystemExit(f"Unknown benchmarks {unknown}; there are {available()}.")
    if not names:
        print("usage: hatch run bench NAME [NAME ...] [--quick]\n")
        print("\n".join(f"  {name}" for name in available()))
    for name in names:
        sys.argv = [name, *options]
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
