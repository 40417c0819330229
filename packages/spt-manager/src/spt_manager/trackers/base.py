"""What the Manager asks of a tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger

Identity = dict[str, str]


class Tracker:
    """How one kind of logger is anchored in a run's directory.

    Attributes:
        name: Of the tracker; its identity is kept in ``{name}_resume.json``.
        logger_class: Name of the class of its loggers, subclasses included.
        single: Whether a run can have one of them only.
        same: Parts of the identity that must not change between two attempts.
    """

    name: ClassVar[str]
    logger_class: ClassVar[str]
    single: ClassVar[bool] = True
    same: ClassVar[tuple[str, ...]] = ("project",)

    def owns(self, logger: Logger) -> bool:
        """Whether a logger is one of this tracker's; nothing is imported to find out."""
        return any(kind.__name__ == self.logger_class for kind in type(logger).__mro__)

    def identity(self, logger: Any, run_id: str) -> Identity:
        """What will name a new run at the tracker, before the run begins."""
        raise NotImplementedError

    def anchor(self, logger: Any, run_dir: Path, identity: Identity, resumed: bool) -> None:
        """Let the logger write into the run's directory, and go on with this identity."""
        raise NotImplementedError

    def replays_from(self, logger: Any, step: int) -> None:
        """Told before the first row that steps from here on may come a second time."""

    def end(self, logger: Any, failed: bool) -> None:
        """End the tracked run, so that the next run of this process is another one."""


def present(values: dict[str, Any]) -> Identity:
    """The values that are there, as text."""
    return {name: str(value) for name, value in values.items() if value}
