"""The ``spt`` command: the demo, training from YAML, and the run registry."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from stable_pretraining import __version__
from stable_pretraining._lazy import load

_YAML = (".yaml", ".yml")


class _Commands(click.Group):
    """A group that also takes a YAML file in the place of a command, as ``spt run`` does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "registry"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "registry":
            command: click.Command = load("spt_registry.cli").cli
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].endswith(_YAML):
            return super().resolve_command(ctx, ["run", *args])
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spt")
def main() -> None:
    """Pretrain models, watch them live, and query the runs.

    \b
    spt demo                      a self-supervised run on bundled images
    spt config.yaml [key=value]   train from a YAML configuration
    spt config.yaml -m [sweep]    the same, as a Hydra multirun
    spt config check config.yaml  build it and show the shapes, before it costs anything
    spt views config.yaml         draw the augmented views that training will see
    spt plot RUN...               draw loss, probes and ranks of runs, side by side
    spt registry ls               the table of runs
    spt methods                   the table of methods
    """


_ALLOW = click.option(
    "--allow",
    callback=lambda ctx, param, value: value.split(",") if value else None,
    metavar="PACKAGE,...",
    help="Refuse a configuration that names anything of another package.",
)


_PICTURE = click.Path(dir_okay=False, path_type=Path)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "--multirun", is_flag=True, help="Sweep over comma-separated values.")
@_ALLOW
def run(config: Path, overrides: tuple[str, ...], multirun: bool, allow: list[str] | None) -> None:
    """Train from CONFIG, a Hydra YAML file with `trainer`, `module` and `data`.

    A YAML is code: every `_target_` in it is imported and called. Run only files you trust, or
    bound what they may name with --allow.

    Exit codes: 0 done, 1 failed, 75 preempted (start it again), 130 interrupted.

    \b
    Examples:
      spt config.yaml trainer.max_epochs=50
      spt config.yaml -m module.optim.optimizer.lr=0.1,0.3
      spt run --allow torch,timm,lightning,stable_pretraining config.yaml
    """
    with nullcontext() if multirun else _signals_held(), _told(config):
        load("spt_manager.launch").run_config(
            config, list(overrides), multirun=multirun, allow=allow
        )


@main.group(name="config")
def config_group() -> None:
    """Look at configurations and settings."""


@config_group.command(name="check", context_settings={"ignore_unknown_options": True})
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--meta", is_flag=True, help="Build without memory for parameters; run no batch.")
@_ALLOW
def check(config: Path, overrides: tuple[str, ...], meta: bool, allow: list[str] | None) -> None:
    """Build all that CONFIG names, run one batch on the CPU, and print the shapes.

    \b
    Examples:
      spt config check config.yaml
      spt config check config.yaml --meta module.backbone.model_name=vit_giant_patch14_224
    """
    with _told(config):
        found = load("spt_manager.check").check_config(
            config, list(overrides), meta=meta, allow=allow
        )
    width = max(len(name) for name, _ in found)
    for name, description in found:
        click.echo(f"{name:<{width}}  {description}")


@config_group.command(name="settings")
def settings() -> None:
    """Print the settings of `spt.set` and of the environment variables, as a Markdown table."""
    click.echo(load("spt_manager.config").settings_table())


@main.command()
def methods() -> None:
    """Print the methods: what each reads, its loss, its paper, and the test that holds it."""
    click.echo(load("spt_methods.catalogue").table())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--out", type=_PICTURE, default="views.png", show_default=True)
@click.option("--rows", type=click.IntRange(min=1), default=6, show_default=True, help="Images.")
@_ALLOW
def views(
    config: Path, overrides: tuple[str, ...], out: Path, rows: int, allow: list[str] | None
) -> None:
    """Draw the views of the first training batch of CONFIG, after all transforms.

    \b
    Examples:
      spt views config.yaml
      spt views config.yaml --out views.svg --rows 3 batch_size=8
    """
    pictures = load("stable_pretraining.pictures")
    with _told(config):
        data = load("spt_manager.check").build_data(config, list(overrides), allow=allow)
    _drawn(lambda: pictures.draw_views(pictures.training_batch(data), out, rows=rows))


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SPT_CACHE_DIR",
    help="Root of the runs.",
)
@click.option("-m", "--metric", "metrics", multiple=True, help="A name or a pattern; several.")
@click.option("--out", type=_PICTURE, default="runs.png", show_default=True)
def plot(
    runs: tuple[str, ...], cache_dir: Path | None, metrics: tuple[str, ...], out: Path
) -> None:
    """Draw metrics of RUNS over their steps: losses, eval/*, RankMe and LiDAR, or those named.

    A run is the beginning of its id, or its directory.

    \b
    Examples:
      spt plot a3f1 77c0
      spt plot a3f1 -m "eval/*" --out curves.html
      spt plot ~/runs/runs/20260301/120000/a3f1...
    """
    pictures = load("stable_pretraining.pictures")
    histories = dict(_history(run, cache_dir) for run in runs)
    chosen = {"metrics": metrics} if metrics else {}
    _drawn(lambda: pictures.plot_runs(histories, out, **chosen))


def _history(run: str, cache_dir: Path | None) -> tuple[str, Any]:
    """Name and logged metrics of a run that is given by its id or its directory."""
    try:
        if (Path(run) / "metrics.csv").is_file():
            folder = Path(run).resolve()
            return folder.name, load("spt_registry.index.history").read_history(folder)
        record = load("stable_pretraining").open_registry(cache_dir=cache_dir)[run]
        return record.run_id, load("spt_registry.index.history").read_history(record.run_dir)
    except (KeyError, ValueError, OSError) as error:
        raise click.ClickException(str(error.args[-1])) from error


def _drawn(draw: Callable[[], Path]) -> None:
    try:
        click.echo(draw())
    except (ValueError, ModuleNotFoundError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    Examples:
      spt completion bash >> ~/.bashrc
      spt completion fish > ~/.config/fish/completions/spt.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "spt", "_SPT_COMPLETE").source())


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let a scheduler's signals wait until the Manager watches for them; importing torch takes long."""
    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        while signal.sigtimedwait(signals, 0):
            pass  # the run has ended: there is nothing left to stop
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _told(config: Path) -> Iterator[None]:
    """Turn what is wrong with a configuration into a message without a traceback."""
    if not config.is_file():
        raise click.ClickException(
            f"There is no configuration file {str(config)!r}; give the path of a YAML file."
        )
    manager, launch = load("spt_manager"), load("spt_manager.launch")
    hydra = load("hydra.errors").HydraException
    mendable = (manager.BuildError, manager.NotAllowedError, manager.RunInUseError)
    try:
        yield
    except (*mendable, launch.ConfigError, hydra) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--jax", "use_jax", is_flag=True, help="Use the JAX backend (extra `jax`).")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SPT_CACHE_DIR",
    default=Path.home() / ".cache" / "stable-pretraining",
    show_default=True,
    help="Where the run is recorded.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Epochs to train for.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def demo(use_jax: bool, cache_dir: Path, epochs: int | None, seed: int) -> None:
    """Pretrain a small ResNet with SimCLR on bundled images, with live probes.

    Takes a few minutes on a laptop's CPU, then prints how good the features are
    beside two baselines, and draws a picture.
    """
    load("stable_pretraining.demo").run_demo(
        backend="jax" if use_jax else "torch", cache_dir=cache_dir, epochs=epochs, seed=seed
    )
