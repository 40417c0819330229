"""Build the wheel of every package of the workspace into one folder."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def packages() -> list[Path]:
    """The folders of the distributions, in alphabetical order."""
    return sorted(file.parent for file in (ROOT / "packages").glob("*/pyproject.toml"))


def build_wheel(package: Path, out: Path) -> None:
    """Build one wheel with the hatchling of this environment; no build isolation, no network."""
    result = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out.resolve())],
        cwd=package,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise SystemExit(f"{package.name} did not build:\n{result.stdout}{result.stderr}")


def main() -> None:
    """Build all wheels, replacing those of an earlier call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out: Path = parser.parse_args().out
    for old in out.glob("*.whl"):
        old.unlink()
    for package in packages():
        build_wheel(package, out)
    for wheel in sorted(out.glob("*.whl")):
        print(f"{wheel.stat().st_size / 1024:9.0f} KiB  {wheel}")


if __name__ == "__main__":
    main()
