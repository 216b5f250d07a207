"""Trials of training code of one's own: what it is checked for, what it is handed, what it gave."""

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
from ablate.execution.trial import Heartbeat, Task, read_checkpoint, write_checkpoint
from ablate.plugins import load_foreign
from ablate.store.records import Predictions
from ablate.study.fields import DataFields, canonical, unknown_name
from ablate.study.own import OwnFields
from ablate.study.study import Study
from ablate.train.device import seed_generators
from ablate.train.fit import CheckpointError, DivergedError

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NONE = np.empty(0)
IMPORTS = ("torch._dynamo", __name__)
"""What workers import before their first trial, whose first use would else be in it."""
PLAIN = (bool, int, float, str, tuple, type(None))


def with_own_knobs(study: Study) -> Study:
    """The study with the defaults of its training function, which is checked for its knobs."""
    code = load_foreign("train", study.train)
    parameters = list(inspect.signature(code).parameters.values())
    if not parameters or parameters.pop(0).kind not in POSITIONAL:
        raise StudyError(f"train {study.train!r}: expected a function train(trial, *, knobs), not {code!r}")
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters)
    knobs = {one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    for name in knobs.keys() & OwnFields.model_fields.keys():
        raise StudyError(f"train {study.train!r}: {name} is ablate's own name; call that parameter otherwise")
    search = study.search.space if study.search else {}
    for arm in study.arms():
        settings = study.settings(study.base | arm).keys() | search.keys()
        for name in sorted(settings - knobs.keys() - DataFields.model_fields.keys()):
            if not any_name and not name.startswith("data."):
                raise StudyError(unknown_name(f"knob of {study.train}", name, knobs))
        for name in knobs.keys() - settings:
            if knobs[name].default is inspect.Parameter.empty:
                raise StudyError(f"{name}: {study.train} has no default for it; set it in the study's base")
    plain = {name: one.default for name, one in knobs.items() if isinstance(one.default, PLAIN)}
    return study.replace(knobs={name: canonical(value) for name, value in plain.items()})


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """A trial of a study's own code as it is handed to a worker; `out` is its folder."""

    study: Study
    out: Path
    engine: str = "own code"

    def train(
        self, device: torch.device, facts: dict[str, Any], tell: Callable[[Heartbeat], None]
    ) -> Predictions | None:
        """Have the study's own code train, and check what it gives."""
        began = time.monotonic()
        self.check_code(self.study.folder)
        if self.study.command:
            result: Any = run_command(self.study, self.trial, self.out.absolute(), device, tell)
            self.check_code(self.study.folder)  # when it read its files, nobody knows
        else:
            train, trial = load_foreign("train", self.study.train), OwnTrial(self, device, tell)
            self.check_code()
            result = train(trial, **trial.fields)
            facts["log"] = tuple(trial.history)
        facts["metrics"], predictions = judged(self.study, result)
        if predictions is not None and self.trial.fields.data:
            classes = open_dataset(self.data_folder).classes
            facts["class_names"] = classes if len(classes) == predictions.logits.shape[1] else ()
        facts["seconds"] = time.monotonic() - began
        return predictions


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
        self._task, self._tell, self._kept = task, tell, read_checkpoint(task, tell)
        if self._kept is None:
            shutil.rmtree(task.out, ignore_errors=True)
        task.out.mkdir(parents=True, exist_ok=True)
        assert isinstance(task.trial.fields, OwnFields)
        self._fields = task.trial.fields
        self.seed, self.device, self.out = task.trial.seed, device, task.out
        self.fields, self.tuning_part = self._fields.knobs, self._fields.tuning_part
        self._epoch, self._epochs, self._begin, self._checked = 0, 0, 0, False
        self.history: list[dict[str, float]] = []
        seed_generators(self.seed)

    def split(self, which: Literal["train", "tune", "report"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images [N, S, S, 3] and labels [N]. In a search "report" is the tuning split, as is "tune"."""
        if not self._fields.data:
            raise StudyError("trial.split: the study names no data; set data and image_size in its base")
        if which not in ("train", "report") and not (which == "tune" and self.tuning_part):
            raise StudyError(
                "trial.split: expected 'train', 'report' for what the trial is judged on or, in a search "
                f"alone, 'tune' for the same, but {which!r} came"
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
                raise DivergedError(f"the training diverged: {name} is {value}", self._epoch)
        self.history.append({"epoch": self._epoch, **row})
        words = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        seen = {name: row.get(name) for name in ("valid_accuracy", "valid_nll")}
        self._tell(Heartbeat(self._epoch + 1, self._epochs, **seen, note=words))

    def save(self, **state: Any) -> None:
        """Keep what `restore` gives if this trial is killed: at an epoch's end, instead of what was kept.

        Tensors, numbers, texts, and lists and dicts of them; the global generators' states go with them.
        """
        numpy: Any = np.random.get_state()
        generators = {"torch": torch.get_rng_state(), "python": random.getstate()}
        generators["numpy"] = (numpy[0], numpy[1].tolist(), *numpy[2:])  # no array: it is to be read safely
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state()
        content = write_checkpoint(
            self._task, {"own": (self._epoch, self.history, generators), "state": state}
        )
        if not self._checked:
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception as error:
                raise StudyError(
                    "trial.save: expected tensors, numbers, texts, and lists and dicts of them, as "
                    f"state_dict() gives, but what came cannot be read back: {first_line(error)}"
                ) from None
            self._checked = True

    def restore(self) -> dict[str, Any] | None:
        """What `save` kept before this trial was killed, with the generators set; None of a fresh one."""
        if self._kept is None:
            return None
        try:
            self._epoch, self.history, generators = self._kept["own"]
            torch.set_rng_state(generators["torch"])
            random.setstate(generators["python"])
            np.random.set_state(generators["numpy"])
            if "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"])
        except Exception as error:
            raise CheckpointError(error) from error
        self._begin = self._epoch + 1
        state: dict[str, Any] = self._kept["state"]
        return state


def _detached(value: Any) -> Any:
    """A value that is no part of a graph, and on no GPU."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def judged(study: Study, result: Any) -> tuple[dict[str, float], Predictions | None]:
    """The numbers and predictions that training code gave; what is not as declared is a StudyError."""
    if not isinstance(result, Mapping) or not result:
        raise StudyError(
            "train: expected a dict such as {'logits': ..., 'labels': ...} or {'my_metric': 0.5} to be "
            f"returned, but {type(result).__name__} came"
        )
    numbers = {name: _detached(value) for name, value in result.items()}
    arrays = {name: np.asarray(numbers.pop(name)) for name in ("logits", "labels") if name in numbers}
    reported = {name for name, metric in study.metrics.items() if not metric.code}
    metrics = dict[str, float]()
    for name, value in numbers.items():
        if name not in reported:
            raise StudyError(
                f"{name}: came as a result, but no such metric is declared; declare it, as Study(metrics="
                f"{{{name!r}: Metric(better='lower')}}) or 'higher'. Accuracy and ablate's other metrics "
                f"follow from logits and labels.{nearest(str(name), reported)}"
            )
        with contextlib.suppress(TypeError, ValueError):
            metrics[name] = float(value)
        if not math.isfinite(metrics.get(name, math.nan)):
            raise StudyError(f"{name}: expected a finite number as its result, but {value!r:.80} came")
    if missing := sorted(reported - metrics.keys()):
        raise StudyError(f"{missing[0]}: is declared in metrics, but the code gave no number of that name")
    if arrays:
        return metrics, _checked(**arrays)
    asked = {study.primary, *study.comparison_family, *(study.search.objective if study.search else ())}
    if needs := sorted(asked - metrics.keys()):
        raise StudyError(f"{needs[0]}: is computed from logits and labels; give these as well")
    return metrics, None


def _checked(logits: NDArray[Any] = NONE, labels: NDArray[Any] = NONE) -> Predictions:
    """Logits [N, K] and labels [N] as predictions."""
    if (
        logits.dtype.kind in "fiu"
        and labels.dtype.kind in "iu"
        and logits.ndim == 2
        and logits.shape[1] > 1
        and labels.shape == logits.shape[:1] != (0,)
        and 0 <= labels.min() <= labels.max() < logits.shape[1]
        and np.isfinite(logits.astype(np.float32)).all()
    ):
        return Predictions(logits.astype(np.float32), labels.astype(np.int64))
    came = (f"{one.dtype} {one.shape} {one.ravel()[:4]}..." for one in (logits, labels))
    raise StudyError(
        "expected logits [N, K] of finite numbers and labels [N] of class ids below K, but logits "
        f"{', labels '.join(came)} came"
    )
