"""What a worker process does: one trial from left to right, and after the last one the timing pass."""

import contextlib
import functools
import hashlib
import io
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.data import open_dataset
from ablate.errors import StoppedError, StudyError, first_line, of_machine
from ablate.losses import build_loss
from ablate.models import build_model, count_macs, count_parameters
from ablate.models.weights import FRESH, begin, read_weights, save_network
from ablate.plugins import load_foreign
from ablate.store.provenance import source_commit, version_of
from ablate.store.records import Environment, Epoch, Failure, Predictions, Record
from ablate.store.results import write_atomically
from ablate.store.timing import Case, TimingPass
from ablate.study.fields import Fields
from ablate.study.sources import read_source
from ablate.study.trials import Numerics, Trial, code_names
from ablate.train.device import device_name, keep_freed_memory, seed_generators, set_numerics, synchronize
from ablate.train.engine import ready_step
from ablate.train.fit import Callbacks, CheckpointError, DivergedError, fit
from ablate.train.images import Images
from ablate.train.step import Step

try:
    CHECKPOINT_SECONDS = float(_asked := os.environ.get("ABLATE_CHECKPOINT_SECONDS", "20"))
except ValueError:
    raise StudyError(
        f"ABLATE_CHECKPOINT_SECONDS: expected a number of seconds, but {_asked!r} came"
    ) from None
"""A trial leaves a checkpoint after an epoch when the last one is older than this."""
ROUNDS, FEWEST_ROUNDS = 40, 8
SAMPLE_SECONDS = 0.02
"""A case's turn in a round takes at least this long, in as many steps as that needs."""
BUDGET_SECONDS = 30.0
"""The rounds stop after this, the fewest aside."""
NO_RATE = 1e-9
LAYOUT = "ablate checkpoint 1"
"""What begins a checkpoint; raised when its state comes to hold other things."""


@dataclass(frozen=True)
class Heartbeat:
    """How far a running trial is: `done` of `epochs`, in epochs and parts of one; of 0 where none knows."""

    done: float
    epochs: int
    train_loss: float | None = None
    valid_accuracy: float | None = None
    valid_nll: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Task:
    """A trial as it is handed to a worker."""

    trial: Trial
    data_folder: Path
    checkpoint: Path
    workers: int
    engine: str = "eager"
    weights: Path | None = None
    """Where the trained network is kept, if it is."""
    warm: bool = False
    """Whether the user's code may have run in its process before."""

    def check_code(self, folder: Path | None = None) -> None:
        """End the run (StoppedError) where the user's code is not what was planned any more."""
        for slot, name in code_names(self.trial.fields).items():
            planned, now = self.trial.sources[slot].now, read_source(name, folder).files
            if files := sorted({file for file, _ in planned.items() ^ now.items()}):
                raise StoppedError(
                    f"{', '.join(files)}: changed while the study ran; no trial of the changed code is "
                    "recorded, and what is recorded is kept. Run the same command again"
                )

    def train(
        self, device: torch.device, facts: dict[str, Any], tell: Callable[[Heartbeat], None]
    ) -> Predictions | None:
        """Train a network and add to the facts of its record, as soon as each is known."""
        self.check_code()
        for slot, name in code_names(self.trial.fields).items():
            load_foreign(slot, name)
        self.check_code()
        fields, dataset = self.trial.looped, open_dataset(self.data_folder)
        facts["class_names"] = dataset.classes
        valid = trial_images(fields, self.data_folder, device)[1]
        step = first_step(self.trial, self.data_folder, device, self.engine)
        facts["environment"] = facts["environment"].model_copy(update={"engine": step.engine})
        facts["parameters"] = count_parameters(step.model)
        arguments = tuple(fields.arguments("arch").items())
        facts["macs"] = _macs(fields.arch, arguments, len(dataset.classes), fields.image_size)
        (callbacks, again), checkpoint = _callbacks(self, tell), read_checkpoint(self, tell)
        with step.evaluated.register_forward_pre_hook(again):  # so that evaluations are heard of
            fitted = fit(step, valid, callbacks=callbacks, checkpoint=checkpoint)
        if self.weights is not None:
            kept = {"fields": fields.model_dump(), "seed": self.trial.seed, "classes": dataset.classes}
            std = 1 / (255 * valid.scale)
            kept |= {"mean": (-valid.shift * std).flatten().tolist(), "std": std.flatten().tolist()}
            save_network(self.weights, step.evaluated, kept)
        facts |= {"history": tuple(fitted.history), "cost": fitted.cost, "features": fitted.features}
        return fitted.predictions


@dataclass(frozen=True)
class TimingTask:
    """What a worker is to time: cases, each with a trial that it is of and the folder of its data."""

    cases: Mapping[Case, tuple[Trial, Path]]
    engine: str = "eager"


Outcome = tuple[Record, Predictions | None]


def do_task(task: Task | TimingTask, slot: int, tell: Callable[[Any], None]) -> Outcome | TimingPass:
    """What a worker does with what it is handed: train a trial, or time the steps."""
    return time_cases(task, slot, tell) if isinstance(task, TimingTask) else run_trial(task, slot, tell)


def run_trial(task: Task, slot: int, tell: Callable[[Heartbeat], None]) -> Outcome:
    """Train once for the record and, of a complete run, the predictions; `tell` is called every second."""
    device = ready_device(task.trial.numerics, slot)
    ran = environment_of(device, task.trial.numerics.threads, workers=task.workers, engine=task.engine)
    ran = ran.model_copy(update={"warm": task.warm})
    facts: dict[str, Any] = {"trial": task.trial, "environment": ran, "status": "complete"}
    predictions = None
    try:
        predictions = task.train(device, facts, tell)
    except CheckpointError as error:
        tell(Heartbeat(0, 0, note=f"its checkpoint does not fit ({first_line(error)})"))
        task.checkpoint.unlink(missing_ok=True)
        return run_trial(task, slot, tell)
    except DivergedError as error:
        failure = Failure(message=str(error), epoch=error.epoch, step=error.step)
        facts |= {"status": "diverged", "history": tuple(error.history), "failure": failure}
    except StudyError as error:
        if of_machine(error):
            raise
        facts |= {"status": "error", "failure": Failure(message=str(error))}
    except (MemoryError, RuntimeError) as error:
        # Torch's CPU allocator raises a plain RuntimeError.
        known_type = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not known_type and "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        facts |= {"status": "oom", "failure": Failure(message=first_line(error) or "out of memory")}
    return Record(**facts), predictions


def first_step(trial: Trial, data_folder: Path, device: torch.device, engine: str) -> Step:
    """What trains a trial, with its network's first weights."""
    fields, dataset = resolved_fields(trial), open_dataset(data_folder)
    train, valid = trial_images(fields, data_folder, device)
    if fields.label_noise:  # of the training images; the reported ones stay as they are
        labels = torch.from_numpy(dataset.noisy_train_labels(fields.label_noise))
        train = replace(train, labels=labels.to(device))

    def build(seed: int) -> torch.nn.Module:
        seed_generators(seed)
        return build_network(fields, len(dataset.classes))

    loss, kind = build_loss(fields.loss, fields.arguments("loss")), (data_folder, device)
    return ready_step(engine, kind, build, loss, train, valid, fields, trial.seed)


def build_network(fields: Fields, classes: int) -> torch.nn.Module:
    """A trial's network with its first weights, drawn from torch's global generator where they are fresh."""
    size, arguments = fields.image_size, fields.arguments("arch")
    model = build_model(fields.arch, num_classes=classes, image_size=size, arguments=arguments)
    return begin(model, fields.arch, fields.weights, fields.freeze)


def resolved_fields(trial: Trial) -> Fields:
    """A trial's fields with the arithmetic that they came to on its device."""
    return trial.looped.model_copy(update=trial.numerics.model_dump(include={"precision", "deterministic"}))


@functools.cache
def _macs(arch: str, arguments: tuple[tuple[str, Any], ...], num_classes: int, image_size: int) -> int | None:
    """Multiply-adds of one image, by a network of their own; None where they cannot be counted."""
    with torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        model = build_model(arch, num_classes=num_classes, image_size=image_size, arguments=dict(arguments))
        return count_macs(model, image_size)
    return None


def ready_device(numerics: Numerics, slot: int) -> torch.device:
    """The device of this worker, set up: the GPU of its number, or the CPU with the trial's threads."""
    torch.set_num_threads(numerics.threads)
    if numerics.device == "cuda":
        torch.cuda.set_device(slot)  # events and synchronisation act on the current device
        return torch.device("cuda", slot)
    keep_freed_memory()
    return torch.device("cpu")


def trial_images(fields: Fields, data_folder: Path, device: torch.device) -> tuple[Images, Images]:
    """Both splits, normalised as the weights that a trial begins with were trained, where that is known."""
    train, valid = resident_images(data_folder, device)
    normalisation = read_weights(fields.weights, fields.arch)[1] if fields.weights != FRESH else None
    if normalisation is None:
        return train, valid
    return train.normalised_by(*normalisation), valid.normalised_by(*normalisation)


@functools.lru_cache(maxsize=1)
def resident_images(data_folder: Path, device: torch.device) -> tuple[Images, Images]:
    """Both splits on the device; a worker keeps them for its next trial."""
    data = open_dataset(data_folder)
    train, valid = (
        Images.on(device, split.images, split.labels, data.mean, data.std)
        for split in (data.train, data.valid)
    )
    return train, valid


def environment_of(device: torch.device, threads: int, *, workers: int, engine: str = "eager") -> Environment:
    """Where and with what this process computes."""
    return Environment(
        device_name=device_name(device), threads=threads, workers=workers, engine=engine,
        python_version=platform.python_version(), torch_version=torch.__version__,
        torchvision_version=version_of("torchvision"), numpy_version=np.__version__,
        cuda_version=torch.version.cuda if device.type == "cuda" else None,
        ablate_version=version_of("ablate"), commit=source_commit(),
    )  # fmt: skip


def _callbacks(task: Task, tell: Callable[[Heartbeat], None]) -> tuple[Callbacks, Callable[..., None]]:
    """What a run tells, steps at most once a second, and what tells of the last one again."""
    epochs = task.trial.looped.epochs
    reported = saved = time.monotonic()
    heartbeat = Heartbeat(0, epochs)

    def again(*_: object) -> None:
        nonlocal reported
        if time.monotonic() - reported > 1:
            reported = time.monotonic()
            tell(heartbeat)

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal heartbeat
        heartbeat = Heartbeat(epoch + step / steps, epochs)
        again()

    def save(make: Callable[[], dict[str, Any]]) -> None:
        nonlocal saved
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            write_checkpoint(task, make())

    def on_epoch(ended: Epoch) -> None:
        tell(Heartbeat(ended.epoch + 1, epochs, ended.train_loss, ended.valid_accuracy, ended.valid_nll))

    return Callbacks(on_step=on_step, on_epoch=on_epoch, save=save), again


def write_checkpoint(task: Task, state: dict[str, Any]) -> bytes:
    """Keep the state of an unfinished run of this trial, and give what is in its file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    with contextlib.suppress(OSError):  # a full disk must not cost the trial
        write_atomically(task.checkpoint, _seal(task, content) + content)
    return content


def _seal(task: Task, content: bytes) -> bytes:
    """The line before a checkpoint's state, by which it is known to be whole, and this trial's."""
    return f"{LAYOUT} {task.trial.trial_id} {hashlib.sha256(content).hexdigest()}\n".encode()


def read_checkpoint(task: Task, tell: Callable[[Heartbeat], None]) -> dict[str, Any] | None:
    """The state an unfinished run of this trial left. A damaged file is as good as none."""
    try:
        seal, _, content = task.checkpoint.read_bytes().partition(b"\n")
        if seal + b"\n" != _seal(task, content):
            raise ValueError("damaged, or of another version")
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError:
        return None
    except Exception as error:
        if of_machine(error):
            raise
        tell(Heartbeat(0, 0, note=f"its checkpoint cannot be used ({first_line(error)})"))
        task.checkpoint.unlink(missing_ok=True)
        return None


def time_cases(task: TimingTask, slot: int, tell: Callable[[float], None]) -> TimingPass:
    """Time every case in rounds, so that a slow moment of the machine meets all; `tell` has the part done."""
    numerics = next(iter(task.cases.values()))[0].numerics  # of all: a plan has one device, and its threads
    device = ready_device(numerics, slot)
    turns = list[_Turn]()
    for case, of in task.cases.items():
        tell(0.0)
        turns.append(_Turn(case, *of, device, task.engine))
    times: list[list[float]] = [[] for _ in turns]
    busy, own, began = _busy_seconds(), time.process_time(), time.monotonic()
    for done in range(ROUNDS):
        if done >= FEWEST_ROUNDS and time.monotonic() - began > BUDGET_SECONDS:
            break
        for place in range(len(turns)):
            turn = (done + place) % len(turns)  # each round begins elsewhere: no case always follows the same
            times[turn].append(turns[turn].take())
            tell((done + (place + 1) / len(turns)) / ROUNDS)
    engines = "; ".join(dict.fromkeys(turn.step.engine for turn in turns))
    busy_others = (_busy_seconds() - busy) - (time.process_time() - own)
    others = busy_others / ((os.cpu_count() or 1) * (time.monotonic() - began))
    return TimingPass(
        cases=tuple(task.cases),
        step_ms=tuple(map(tuple, times)),
        steps=tuple(turn.steps for turn in turns),
        environment=environment_of(device, numerics.threads, workers=1, engine=engines),
        others=min(max(others, 0.0), 1.0) if math.isfinite(others) else None,
    )


class _Turn:
    """One case, ready to take steps: its network, a step, and batches of its images."""

    def __init__(
        self, case: Case, trial: Trial, data_folder: Path, device: torch.device, engine: str
    ) -> None:
        # A rate that changes nothing: one batch over and over would otherwise end in zeros or infinities.
        changes: dict[str, Any] = {"loss": case.loss, "reduction": case.reduction, "lr": NO_RATE}
        fields = trial.looped
        if case.loss != fields.loss:
            fields, changes = fields.without_arguments("loss"), {**changes, "epsilon": 0.0}
        trial = trial.model_copy(update={"fields": fields.model_copy(update=changes)})
        set_numerics(deterministic=trial.numerics.deterministic)
        self.device = device
        self.step = first_step(trial, data_folder, device, engine)
        self.index = self.step.begin_epoch(0)[0]
        self.steps = 1
        self.take()  # the first step allocates and chooses algorithms
        self.steps = max(1, math.ceil(1000 * SAMPLE_SECONDS / self.take()))

    def take(self) -> float:
        """Milliseconds per step, over `steps` steps."""
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(self.steps):
            self.step(self.index)
        synchronize(self.device)
        return 1000 * (time.perf_counter() - began) / self.steps


def _busy_seconds() -> float:
    """Seconds that all cores have worked since the machine started; NaN where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        user, nice, system, _idle, _iowait, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
        return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")
    return math.nan
