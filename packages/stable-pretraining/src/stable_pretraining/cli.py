"""The ``spt`` command: the demo, training from YAML, and the run registry."""

from __future__ import annotations

from pathlib import Path

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
    spt registry ls               the table of runs
    """


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "--multirun", is_flag=True, help="Sweep over comma-separated values.")
def run(config: Path, overrides: tuple[str, ...], multirun: bool) -> None:
    """Train from CONFIG, a Hydra YAML file with `trainer`, `module` and `data`.

    A YAML is code: every `_target_` in it is imported and called. Run only files you trust.

    \b
    Examples:
      spt config.yaml trainer.max_epochs=50
      spt config.yaml -m module.optim.optimizer.lr=0.1,0.3
    """
    if not config.is_file():
        raise click.ClickException(
            f"There is no configuration file {str(config)!r}; give the path of a YAML file."
        )
    load("spt_manager.launch").run_config(config, list(overrides), multirun=multirun)


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
