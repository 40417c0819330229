"""The loops: an epoch of training steps, an evaluation, a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from spt_jax.batches import WEIGHT
from spt_jax.engine import means
from spt_jax.feed import batches_of, evaluation_items, training_items
from spt_jax.module import Module, Stage
from spt_jax.placement import fetch
from spt_jax.prefetch import Prefetch

if TYPE_CHECKING:
    from spt_jax.trainer import Trainer


def training_loop(
    trainer: Trainer, module: Module, loader: Iterable[Any], val_loader: Iterable[Any] | None
) -> None:
    """Epochs until the end or a stop; each is closed by its validation and its row of means."""
    while not trainer.done:
        steps = trainer.steps_per_epoch(loader)
        done = -(-trainer.epoch_batches // trainer.accumulate_grad_batches)
        trainer.bar.start_epoch(trainer.current_epoch, steps, done)
        whole = _train_epoch(trainer, module, loader)
        if trainer.should_stop and not whole:
            return  # the rest of the epoch and its row belong to the continuation
        _close_epoch(trainer, module, val_loader, whole)


def _train_epoch(trainer: Trainer, module: Module, loader: Any) -> bool:
    """The steps of the current epoch that are left; whether the epoch is complete."""
    engine, placement = trainer.engine, trainer.placement
    assert engine is not None
    assert placement is not None
    limit = batches_of(loader, trainer.limits["fit"])
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(trainer.current_epoch)
    if limit is not None and trainer.epoch_batches >= limit:
        return True  # stopped after its last batch: only its validation is left
    if trainer.epoch_batches and trainer.loader_state is not None:
        loader.load_state_dict(trainer.loader_state)
    trainer.hook("on_train_epoch_start", module)
    items = training_items(
        loader,
        trainer.first,
        trainer.rows,
        placement,
        accumulate=trainer.accumulate_grad_batches,
        seen=trainer.epoch_batches,
        limit=limit,
    )
    trainer.training = True
    with Prefetch(items) as ahead:
        for item in ahead:
            trainer.state, outputs = engine.train(trainer.state, item.batch)
            trainer.global_step += 1
            trainer.epoch_batches, trainer.loader_state = item.batches, item.loader
            if trainer.global_step % trainer.log_every_n_steps == 0:
                _log_window(trainer)
            trainer.bar.advance()
            if engine.plan.wants_outputs:
                index = item.batches - 1
                trainer.hook("on_train_batch_end", module, outputs, item.loaded, index)
            trainer.hook("on_boundary", module)
            if trainer.should_stop or trainer.no_more_steps:
                return item.batches == limit
    if trainer.epoch_batches == 0:
        raise ValueError(f"The training loader gave no batch in epoch {trainer.current_epoch}.")
    return True


def _log_window(trainer: Trainer) -> None:
    """Fetch the means since the last time, in one transfer, and log them."""
    engine, state = trainer.engine, trainer.state
    assert engine is not None
    assert state is not None
    row = step_names(means(fetch(state["logs"]["window"])))
    if engine.plan.rate is not None:
        row["hparams/lr"] = float(engine.plan.rate(trainer.global_step - 1))
    trainer.state = engine.clear(state, "window")
    trainer.log_metrics(row)
    trainer.bar.show(trainer.callback_metrics)


def _close_epoch(
    trainer: Trainer, module: Module, val_loader: Iterable[Any] | None, whole: bool
) -> None:
    """Validation, the row of the epoch's means, and on to the next one."""
    engine = trainer.engine
    assert engine is not None
    assert trainer.state is not None
    if not trainer.train_epoch_ended:  # it has, if the run was stopped in the validation
        trainer.hook("on_train_epoch_end", module)
    trainer.train_epoch_ended = whole
    metrics: dict[str, float] | None = None
    due = (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0
    if val_loader is not None and trainer.enable_validation and due:
        metrics = evaluation_loop(trainer, module, val_loader, "validate")
        if metrics is None:  # stopped inside; the continuation validates anew
            if trainer.recorder is not None:
                trainer.recorder.on_validation_stopped(trainer)
            return
    row = epoch_names(means(fetch(trainer.state["logs"]["epoch"])))
    trainer.log_metrics({**row, **(metrics or {})})
    if metrics is not None:
        trainer.hook("on_validation_epoch_end", module)
    trainer.bar.end_epoch(trainer.current_epoch, trainer.global_step, trainer.callback_metrics)
    trainer.state = engine.clear(trainer.state, "epoch")
    trainer.train_epoch_ended = False
    if whole:
        trainer.current_epoch, trainer.epoch_batches = trainer.current_epoch + 1, 0
        trainer.loader_state = None
    trainer.hook("on_epoch_end", module)


def evaluation_loop(
    trainer: Trainer, module: Module, loader: Iterable[Any], stage: Stage
) -> dict[str, float] | None:
    """The metrics of one pass over a loader; ``None`` if the run was asked to stop on the way."""
    engine, placement = trainer.engine, trainer.placement
    assert engine is not None
    assert placement is not None
    assert trainer.state is not None
    stopped, trainer.training = trainer.should_stop, False
    totals: Any = None
    trainer.hook("on_validation_epoch_start", module)
    limit = batches_of(loader, trainer.limits[stage])
    with Prefetch(evaluation_items(loader, trainer.rows, placement, limit)) as ahead:
        for index, item in enumerate(ahead):
            trainer.state, totals, outputs = engine.evaluate(
                trainer.state, totals, item.batch, stage
            )
            if engine.plan.wants_eval_outputs:
                trainer.hook("on_validation_batch_end", module, outputs, item.loaded, index)
            trainer.hook("on_boundary", module)
            if trainer.should_stop and not stopped:
                break
    if totals is None:
        raise ValueError(f"The {stage} loader gave no batch.")
    metrics = means(fetch(totals))
    for name, value in _finished(trainer).items():
        metrics[name if stage == "validate" else f"test/{name.removeprefix('eval/')}"] = value
    return None if trainer.should_stop and not stopped else metrics


def _finished(trainer: Trainer) -> dict[str, float]:
    """What the callbacks have gathered; their totals are cleared."""
    assert trainer.state is not None
    assert trainer.placement is not None
    metrics: dict[str, float] = {}
    states = []
    for callback, own in zip(trainer.callbacks, trainer.state["callbacks"], strict=True):
        own, found = callback.finish(own)
        states.append(own)
        metrics.update(found)
    trainer.state = {**trainer.state, "callbacks": trainer.placement.state(states)}
    return metrics


def predict_loop(trainer: Trainer, loader: Iterable[Any]) -> list[dict[str, Any]]:
    """The outputs of each batch on the host, without the rows that only filled it."""
    engine, placement = trainer.engine, trainer.placement
    assert engine is not None
    assert placement is not None
    assert trainer.state is not None
    limit = batches_of(loader, trainer.limits["predict"])
    found: list[dict[str, Any]] = []
    with Prefetch(evaluation_items(loader, trainer.rows, placement, limit)) as ahead:
        for item in ahead:
            outputs = fetch(engine.predict(trainer.state, item.batch))
            found.append(real_rows(outputs))
    return found


def real_rows(outputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs without the rows of weight 0, in every array that has one row (or view) per row."""
    weight = np.asarray(outputs[WEIGHT])

    def kept(x: Any) -> Any:
        x = np.asarray(x)
        if x.ndim == 0 or len(x) % len(weight):
            return x
        return x[np.tile(weight > 0, len(x) // len(weight))]

    return jax.tree.map(kept, {key: value for key, value in outputs.items() if key != WEIGHT})


def step_names(found: dict[str, float]) -> dict[str, float]:
    """Names of a step's row: what the module logs ends in ``_step``, as Lightning's."""
    return {name if _of_callback(name) else f"{name}_step": value for name, value in found.items()}


def epoch_names(found: dict[str, float]) -> dict[str, float]:
    """Names of an epoch's row: all end in ``_epoch``, and the module's appear plainly, too."""
    plain = {name: value for name, value in found.items() if not _of_callback(name)}
    return {**plain, **{f"{name}_epoch": value for name, value in found.items()}}


def _of_callback(name: str) -> bool:
    return name.startswith("train/")
