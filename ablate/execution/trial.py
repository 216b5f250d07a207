"""One trial from left to right, as a worker process does it."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ablate.data import Dataset, open_dataset
from ablate.losses import build_loss
from ablate.models import build_model, count_macs, count_parameters
from ablate.store.provenance import source_commit, version_of
from ablate.store.records import Cost, Environment, Epoch, Failure, Features, Predictions, Record, Scatter
from ablate.store.results import write_atomically
from ablate.study.fields import Fields
from ablate.study.trials import Numerics, Trial, stream_seed
from ablate.train import (
    Callbacks,
    DivergedError,
    EpochResult,
    Fitted,
    Images,
    Settings,
    Step,
    device_name,
    fit,
    keep_freed_memory,
    ready_step,
    seed_generators,
)

Engine = Literal["eager", "graph"]
"""How training steps reach the device: one operation after the other, or captured as a whole (CUDA)."""

CHECKPOINT_SECONDS = float(os.environ.get("ABLATE_CHECKPOINT_SECONDS", "20"))
"""A trial leaves a checkpoint after an epoch when the last one is older than this."""


@dataclass(frozen=True)
class Task:
    """A trial as it is handed to a worker."""

    trial: Trial
    data_folder: Path
    checkpoint: Path
    workers: int
    engine: Engine = "eager"


@dataclass(frozen=True)
class Heartbeat:
    """How far a running trial is: `done` of `epochs`, in epochs and parts of one."""

    done: float
    epochs: int
    train_loss: float | None = None
    valid_accuracy: float | None = None
    valid_nll: float | None = None


Outcome = tuple[Record, Predictions | None]


def run_trial(task: Task, slot: int, tell: Callable[[Heartbeat], None]) -> Outcome:
    """Train one network and give its record, with the predictions of a complete run.

    Args:
        task: the trial, and where its data and checkpoint are.
        slot: number of the worker; on CUDA, of its GPU.
        tell: called with how far it is, about once a second.
    """
    device = ready_device(task.trial.numerics, slot)
    dataset = open_dataset(task.data_folder)
    known: dict[str, Any] = {
        "trial": task.trial,
        "environment": environment_of(device, task.trial.numerics.threads, workers=task.workers),
        "class_names": dataset.classes,
    }
    try:
        valid = resident_images(task.data_folder, device)[1]
        step, not_captured = first_step(task.trial, task.data_folder, device, task.engine)
        engine = f"eager: {not_captured}" if not_captured else step.engine
        known["environment"] = known["environment"].model_copy(update={"engine": engine})
        known["parameters"] = count_parameters(step.model)
        known["macs"] = _macs(task.trial.fields.arch, len(dataset.classes), task.trial.fields.image_size)
        fitted = fit(
            step,
            valid,
            callbacks=_callbacks(task, tell),
            checkpoint=_read_checkpoint(task),
        )
    except DivergedError as error:
        failure = Failure(message=str(error), epoch=error.epoch, step=error.step)
        return Record(**known, status="diverged", history=_history(error.history), failure=failure), None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        failure = Failure(message=(str(error) or "out of memory").splitlines()[0])
        return Record(**known, status="oom", failure=failure), None
    known |= {"history": _history(fitted.progress.history), "features": _features(fitted)}
    cost = _cost(fitted, len(step.images), task.trial.fields)
    return Record(**known, status="complete", cost=cost), _predictions(fitted, dataset)


def first_step(
    trial: Trial, data_folder: Path, device: torch.device, engine: Engine
) -> tuple[Step, str | None]:
    """What trains a trial, with its network's first weights; and why it is not of the engine asked for."""
    fields, dataset = trial.fields, open_dataset(data_folder)
    train, valid = resident_images(data_folder, device)

    def build(seed: int) -> torch.nn.Module:
        seed_generators(seed)
        return build_model(fields.arch, num_classes=len(dataset.classes), image_size=fields.image_size)

    return ready_step(
        engine,
        (fields.arch, fields.loss, data_folder, device),
        build,
        stream_seed(trial.seed, "init"),
        build_loss(fields.loss),
        _mislabelled(train, dataset, fields.label_noise),
        valid,
        build_settings(trial),
    )


@functools.cache
def _macs(arch: str, num_classes: int, image_size: int) -> int | None:
    """Multiply-adds of one image; of a network built for it, so that nothing touches the one that trains.

    None where they cannot be counted: that must not cost a trial.
    """
    with torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        return count_macs(build_model(arch, num_classes=num_classes, image_size=image_size), image_size)
    return None


def _mislabelled(train: Images, dataset: Dataset, label_noise: float) -> Images:
    """The training images with a part of their labels wrong. The reported ones stay as they are."""
    if not label_noise:
        return train
    labels = torch.from_numpy(dataset.noisy_train_labels(label_noise))
    return replace(train, labels=labels.to(train.labels.device))


def _history(results: list[EpochResult]) -> tuple[Epoch, ...]:
    return tuple(Epoch(**asdict(result)) for result in results)


def _features(fitted: Fitted) -> Features | None:
    found = fitted.features
    if found is None:
        return None
    return Features(
        dimension=found.dimension,
        valid=Scatter(**asdict(found.valid.scatter)),
        train=Scatter(**asdict(found.train.scatter)),
        classes=found.plane.classes if found.plane else (),
        templates=tuple(map(tuple, found.plane.templates.tolist())) if found.plane else (),
    )


def _predictions(fitted: Fitted, dataset: Dataset) -> Predictions:
    predictions = Predictions(logits=fitted.logits, labels=np.array(dataset.valid.labels))
    found = fitted.features
    if found is None:
        return predictions
    return replace(
        predictions,
        projection_valid=found.valid.points,
        projection_valid_labels=found.valid.point_labels,
        projection_train=found.train.points,
        projection_train_labels=found.train.point_labels,
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Torch's CPU allocator raises a plain RuntimeError."""
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def ready_device(numerics: Numerics, slot: int) -> torch.device:
    """The device of this worker, set up: the GPU of its number, or the CPU with the trial's threads."""
    torch.set_num_threads(numerics.threads)
    if numerics.device == "cuda":
        torch.cuda.set_device(slot)  # events and synchronisation act on the current device
        return torch.device("cuda", slot)
    keep_freed_memory()
    return torch.device("cpu")


@functools.lru_cache(maxsize=1)
def resident_images(data_folder: Path, device: torch.device) -> tuple[Images, Images]:
    """Both splits on the device; a worker keeps them for its next trial."""
    data = open_dataset(data_folder)
    train, valid = (
        Images.on(device, split.images, split.labels, data.mean, data.std)
        for split in (data.train, data.valid)
    )
    return train, valid


def build_settings(trial: Trial) -> Settings:
    """What the training engine is told of a trial."""
    fields = trial.fields
    precision: Literal["float32", "bfloat16"] = (
        "bfloat16" if trial.numerics.precision == "bfloat16" else "float32"
    )
    return Settings(
        epochs=fields.epochs,
        batch_size=fields.batch_size,
        eval_batch_size=fields.eval_batch_size,
        drop_last=fields.drop_last,
        lr=fields.lr,
        momentum=fields.momentum,
        weight_decay=fields.weight_decay,
        epsilon=fields.epsilon,
        reduction=fields.reduction,
        lr_rule=fields.lr_rule,
        precision=precision,
        deterministic=trial.numerics.deterministic,
        order_seed=stream_seed(trial.seed, "order"),
        noise_seed=stream_seed(trial.seed, "noise"),
        image_size=fields.image_size,
        optimizer=fields.optimizer,
        beta2=fields.beta2,
        adam_epsilon=fields.adam_epsilon,
        decay_norms=fields.decay_norms,
        clip_norm=fields.clip_norm,
        schedule=fields.schedule,
        anneal_from=fields.anneal_from,
        crop_area=fields.crop_area,
        flip=fields.flip,
        mixup=fields.mixup,
        augment_seed=stream_seed(trial.seed, "augmentation"),
    )


def environment_of(device: torch.device, threads: int, *, workers: int) -> Environment:
    """Where and with what this process computes."""
    return Environment(
        device_name=device_name(device),
        threads=threads,
        workers=workers,
        python_version=platform.python_version(),
        torch_version=torch.__version__,
        torchvision_version=version_of("torchvision"),
        numpy_version=np.__version__,
        cuda_version=torch.version.cuda if device.type == "cuda" else None,
        ablate_version=version_of("ablate"),
        commit=source_commit(),
    )


def _cost(fitted: Fitted, images: int, fields: Fields) -> Cost:
    history, steps = fitted.progress.history, np.array(fitted.progress.step_ms)
    train_seconds = sum(epoch.seconds for epoch in history)
    dropped = images % fields.batch_size if fields.drop_last and images >= fields.batch_size else 0
    low, middle, high = np.quantile(steps, [0.2, 0.5, 0.8])
    return Cost(
        step_ms=middle,
        step_ms_p20=low,
        step_ms_p80=high,
        images_per_second=(images - dropped) * len(history) / train_seconds,
        peak_memory_mb=fitted.peak_memory_mb,
        train_seconds=train_seconds,
        eval_seconds=fitted.progress.eval_seconds,
    )


def _callbacks(task: Task, tell: Callable[[Heartbeat], None]) -> Callbacks:
    epochs = task.trial.fields.epochs
    told, saved = time.monotonic(), time.monotonic()

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            told = time.monotonic()
            tell(Heartbeat(epoch + step / steps, epochs))

    def save(make: Callable[[], dict[str, Any]]) -> None:
        nonlocal saved
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk must not cost the trial
                _write_checkpoint(task, make())

    return Callbacks(
        on_step=on_step,
        on_epoch=lambda result: tell(
            Heartbeat(result.epoch + 1, epochs, result.train_loss, result.valid_accuracy, result.valid_nll)
        ),
        save=save,
    )


def _write_checkpoint(task: Task, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"trial_id": task.trial.trial_id, "state": state}, buffer)
    write_atomically(task.checkpoint, buffer.getvalue())


def _read_checkpoint(task: Task) -> dict[str, Any] | None:
    """The state an unfinished run of this trial left. A damaged file is as good as none."""
    try:
        stored = torch.load(task.checkpoint, map_location="cpu", weights_only=True)
        state: dict[str, Any] = stored["state"]
    except FileNotFoundError:
        return None
    except Exception:
        task.checkpoint.unlink()
        return None
    return state if stored["trial_id"] == task.trial.trial_id else None
