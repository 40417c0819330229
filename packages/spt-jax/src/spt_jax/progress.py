"""What a person sees of a run: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunProgress:
    """Shows the steps of the current epoch, and each epoch's metrics when it ends.

    Args:
        max_epochs: Epochs of the run.
        enabled: Whether to show anything.
        console: Where; standard output by default.
    """

    def __init__(
        self, max_epochs: int, *, enabled: bool = True, console: Console | None = None
    ) -> None:
        self.max_epochs = max_epochs
        self.enabled = enabled
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._started = time.perf_counter()

    def start_epoch(self, epoch: int, steps: int | None, done: int) -> None:
        """Begin an epoch, counted from 0, of so many steps, some of them done before."""
        self._started = time.perf_counter()
        if not (self.enabled and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            transient=True,
        )
        name = f"epoch {epoch + 1}/{self.max_epochs}"
        self._task = self._bar.add_task(name, total=steps, completed=done, metrics="")
        self._bar.start()

    def advance(self) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def show(self, metrics: Mapping[str, float]) -> None:
        """Show the newest metrics beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, metrics=_line(metrics))

    def end_epoch(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None:
        """Print the line of an epoch that is complete, counted from 0."""
        self.close()
        if self.enabled:
            seconds = time.perf_counter() - self._started
            head = f"epoch {epoch + 1}/{self.max_epochs}  step {step}"
            self.console.print(f"{head}  {_line(metrics)}  ({seconds:.0f} s)", markup=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _line(metrics: Mapping[str, float]) -> str:
    shown = {
        name: value
        for name, value in sorted(metrics.items())
        if not name.endswith(("_step", "_epoch")) and name != "epoch"
    }
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
