"""Trials of training code of one's own: what it is checked for, what it is handed, what it gave."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ablate.data import open_dataset
from ablate.errors import StudyError, first_line, nearest
from ablate.execution.command import run_command
from ablate.execution.trial import (
    Heartbeat,
    Outcome,
    Task,
    TimingTask,
    environment_of,
    read_checkpoint,
    ready_device,
    run_trial,
    time_cases,
)
from ablate.plugins import load_foreign
from ablate.store.records import Failure, Predictions, Record
from ablate.store.results import write_atomically
from ablate.store.timing import TimingPass
from ablate.study.fields import DataFields, canonical, unknown_name
from ablate.study.own import OwnFields
from ablate.study.study import Study
from ablate.train.device import seed_generators

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
PLAIN = (bool, int, float, str, tuple, type(None))


def with_own_knobs(study: Study) -> Study:
    """The study with the defaults of its training function, which is checked for its knobs."""
    code = load_foreign("train", study.train)
    if not callable(code):
        raise StudyError(f"train {study.train!r}: expected a function train(trial, *, knobs), not {code!r}")
    parameters = list(inspect.signature(code).parameters.values())
    if not parameters or parameters.pop(0).kind not in POSITIONAL:
        raise StudyError(f"train {study.train!r}: expected trial as its first parameter, before its knobs")
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters)
    knobs = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    for name in knobs.keys() & OwnFields.model_fields.keys():
        raise StudyError(f"train {study.train!r}: {name} is ablate's own name; call that parameter otherwise")
    search = study.search.space if study.search else {}
    for arm in study.arms():
        settings = study.settings(study.base | arm).keys() | search.keys()
        for name in sorted(settings - knobs.keys() - DataFields.model_fields.keys()):
            if not any_name and not name.startswith("data."):
                raise StudyError(
                    f"{unknown_name(f'knob of {study.train}', name, knobs)} Its parameters are its knobs."
                )
        for name in knobs.keys() - settings:
            if knobs[name].default is inspect.Parameter.empty:
                raise StudyError(f"{name}: {study.train} has no default for it; set it in the study's base")
    given = {name: one.default for name, one in knobs.items() if one.default is not one.empty}
    plain = {name: canonical(value) for name, value in given.items() if isinstance(value, PLAIN)}
    return study.replace(knobs=plain)


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """A trial of a study's own code as it is handed to a worker; `out` is its folder."""

    study: Study
    out: Path


def do_task(
    task: Task | TimingTask, slot: int, tell: Callable[[Heartbeat | float], None]
) -> Outcome | TimingPass:
    """What a worker does with what it is handed: train a trial, or time the steps."""
    if isinstance(task, OwnTask):
        return run_own(task, slot, tell)
    return time_cases(task, slot, tell) if isinstance(task, TimingTask) else run_trial(task, slot, tell)


class NotFiniteError(ArithmeticError):
    """A logged number is infinite or none: the training diverged."""


class OwnTrial:
    """What training code is handed.

    Attributes:
        seed: of the trial; the global generators of torch, NumPy and Python are seeded with it already.
        fields: every knob's value.
        device: where to train.
        out: a folder of the trial's own, kept with the results.
        tuning_part: of a search's point the part of the training data to judge it by, and nothing else; 0.0.
    """

    def __init__(self, task: OwnTask, device: torch.device, tell: Callable[[Heartbeat], None]) -> None:
        self._task, self._tell, self._kept = task, tell, read_checkpoint(task)
        if self._kept is None:
            shutil.rmtree(task.out, ignore_errors=True)
        task.out.mkdir(parents=True, exist_ok=True)
        self._fields = own_fields_of(task)
        self.seed, self.device, self.out = task.trial.seed, device, task.out
        self.fields, self.tuning_part = self._fields.knobs, self._fields.tuning_part
        self._epoch, self._epochs, self._begin, self._checked = 0, 0, 0, False
        self.history: list[dict[str, float]] = []
        seed_generators(self.seed)

    def split(self, which: Literal["train", "tune", "report"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images [N, S, S, 3] and labels [N]. In a search "report" is the tuning split, as is "tune"."""
        if which not in ("train", "tune", "report"):
            raise StudyError(f"trial.split: expected 'train', 'tune' or 'report', but {which!r} came")
        if not self._fields.data:
            raise StudyError("trial.split: the study names no data; set data and image_size in its base")
        if which == "tune" and not self.tuning_part:
            raise StudyError(
                "trial.split('tune'): no images are held back outside of a search; take 'report' for what "
                "the trial is judged on, which in a search is the tuning split"
            )
        dataset = open_dataset(self._task.data_folder)
        if which == "train":
            return np.array(dataset.train.images), dataset.noisy_train_labels(self._fields.label_noise)
        return np.array(dataset.valid.images), np.array(dataset.valid.labels)

    def epochs(self, number: int) -> Iterator[int]:
        """0, 1, ... below a number, for progress; after `restore` those that are left."""
        self._epochs = number
        for epoch in range(self._begin, number):
            self._epoch = epoch
            self._tell(Heartbeat(epoch, number))
            yield epoch

    def log(self, **numbers: Any) -> None:
        """Keep and show what this epoch measured."""
        row = {name: float(_detached(value)) for name, value in numbers.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"{name} is {value}")
        self.history.append({"epoch": self._epoch, **row})
        words = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        seen = {name: row.get(name) for name in ("valid_accuracy", "valid_nll")}
        self._tell(Heartbeat(self._epoch + 1, self._epochs, **seen, note=words))

    def save(self, **state: Any) -> None:
        """Keep what `restore` gives if this trial is killed: at an epoch's end, instead of what was kept.

        Tensors, numbers, texts, and lists and dicts of them; global generators are kept with it.
        """
        buffer, own = io.BytesIO(), (self._epoch, self.history, _generators())
        torch.save({"trial_id": self._task.trial.trial_id, "state": {"own": own, "state": state}}, buffer)
        if not self._checked:
            try:
                torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
            except Exception as error:
                raise StudyError(
                    "trial.save: expected tensors, numbers, texts, and lists and dicts of them, as "
                    f"state_dict() gives, but what came cannot be read back: {first_line(error)}"
                ) from None
            self._checked = True
        with contextlib.suppress(OSError):  # a full disk must not cost the trial
            write_atomically(self._task.checkpoint, buffer.getvalue())

    def restore(self) -> dict[str, Any] | None:
        """What `save` kept before this trial was killed, with the generators set; None of a fresh one."""
        if self._kept is None:
            return None
        self._epoch, self.history, generators = self._kept["own"]
        self._begin = self._epoch + 1
        _set_generators(generators)
        state: dict[str, Any] = self._kept["state"]
        return state


def _detached(value: Any) -> Any:
    """A value that is no part of a graph, and on no GPU."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _generators() -> dict[str, Any]:
    """The states of the global generators, as what can be read back safely."""
    numpy: Any = np.random.get_state()
    numpy = (numpy[0], numpy[1].tolist(), *numpy[2:])
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numpy}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_generators(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def own_fields_of(task: Task) -> OwnFields:
    """The fields of a trial of one's own code."""
    assert isinstance(task.trial.fields, OwnFields)
    return task.trial.fields


def run_own(task: OwnTask, slot: int, tell: Callable[[Heartbeat], None]) -> Outcome:
    """Have a trial trained by the study's own code, and give its record with what it came to."""
    device, study = ready_device(task.trial.numerics, slot), task.study
    environment = environment_of(device, task.trial.numerics.threads, workers=task.workers, engine="own code")
    facts: dict[str, Any] = {"trial": task.trial, "environment": environment}
    began, trial = time.monotonic(), None
    try:
        if study.command:
            result = run_command(study, task.trial, task.out.absolute(), device, tell)
        else:
            trial = OwnTrial(task, device, tell)
            code = load_foreign("train", study.train)
            result = code(trial, **trial.fields)
        metrics, predictions = judged(study, result)
    except NotFiniteError as error:
        epoch = trial.history[-1]["epoch"] + 1 if trial and trial.history else 0
        failure = Failure(message=f"the training diverged: {error}", epoch=int(epoch))
        return Record(**facts, status="diverged", failure=failure), None
    except (MemoryError, torch.OutOfMemoryError) as error:
        return Record(
            **facts, status="oom", failure=Failure(message=first_line(error) or "out of memory")
        ), None
    except StudyError as error:
        return Record(**facts, status="error", failure=Failure(message=str(error))), None
    if predictions is not None and own_fields_of(task).data:
        classes = open_dataset(task.data_folder).classes
        facts |= {"class_names": classes if len(classes) == predictions.logits.shape[1] else ()}
    facts |= {"metrics": metrics, "log": tuple(trial.history) if trial else ()}
    return Record(**facts, status="complete", seconds=time.monotonic() - began), predictions


def judged(study: Study, result: Any) -> tuple[dict[str, float], Predictions | None]:
    """The numbers and predictions that training code gave; what is not as declared is a StudyError."""
    if not isinstance(result, Mapping) or not result:
        raise StudyError(
            "train: expected a dict such as {'logits': ..., 'labels': ...} or {'my_metric': 0.5} to be "
            f"returned, but {type(result).__name__} came"
        )
    numbers, arrays = dict(result), {}
    for name in ("logits", "labels"):
        if name in numbers:
            arrays[name] = np.asarray(_detached(numbers.pop(name)))
    reported = {name for name, metric in study.metrics.items() if not metric.code}
    metrics = {}
    for name, value in numbers.items():
        if name not in reported:
            raise StudyError(
                f"{name}: came as a result, but no metric of that name is declared; declare it, as "
                f"Study(metrics={{{name!r}: Metric(better='lower')}}).{nearest(str(name), reported)}"
            )
        try:
            metrics[name] = float(_detached(value))
        except (TypeError, ValueError):
            raise StudyError(f"{name}: expected one number, but {type(value).__name__} came") from None
        if not math.isfinite(metrics[name]):
            raise StudyError(f"{name}: expected a finite number as its result, but {metrics[name]} came")
    if missing := sorted(reported - metrics.keys()):
        raise StudyError(f"{missing[0]}: is declared in metrics, but the code gave no number of that name")
    asked = {study.primary, *study.comparison_family, *(study.search.objective if study.search else ())}
    if not arrays:
        if needs := sorted(asked - metrics.keys()):
            raise StudyError(f"{needs[0]}: is computed from logits and labels; give these as well")
        return metrics, None
    return metrics, _checked(arrays)


def _checked(arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    """Logits [N, K] and labels [N] as predictions."""
    shapes = " and ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    fault = f"expected logits [N, K] of finite numbers and labels [N] of class ids below K, but {shapes} came"
    if len(arrays) < 2 or not np.issubdtype(arrays["labels"].dtype, np.integer):
        raise StudyError(fault)
    logits, labels = arrays["logits"], arrays["labels"].astype(np.int64)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise StudyError(fault)
    if logits.dtype.kind not in "fiu" or not np.isfinite(logits := logits.astype(np.float32)).all():
        raise StudyError(f"{fault}; some are no finite numbers")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise StudyError(f"{fault}; labels are {labels.min()} to {labels.max()}")
    return Predictions(logits, labels)
