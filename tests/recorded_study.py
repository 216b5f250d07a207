"""Studies on disk as a run leaves them, made without training: so many of 1,000 images right per trial."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ablate.gate.compare import Run, read_run
from ablate.store.records import Cost, Environment, Failure, Predictions, Record, write_record
from ablate.store.results import ResultsFolder, write_sealed
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Numerics, Plan, Trial, build_trial, expand

CPU = Numerics(device="cpu", precision="float32", deterministic=True)
CUDA = Numerics(device="cuda", precision="bfloat16", deterministic=False)
BASE = {"data": "synthetic", "image_size": 16, "epochs": 4}
COST = Cost(
    step_ms=1, step_ms_p20=1, step_ms_p80=1, images_per_second=1, peak_memory_mb=1,
    train_seconds=1, eval_seconds=1,
)  # fmt: skip
FAILED, MISSING = -1, -2


def trial(
    seed: int = 0, numerics: Numerics = CPU, fingerprint: str = "f", repeat: int = 0, **changes: Any
) -> Trial:
    return build_trial({}, resolve(BASE, changes), seed, numerics, fingerprint, repeat)


def planned(study: Study, *, profile: str = "quick", reason: str = "r", numerics: Numerics = CPU) -> Plan:
    """A study's trials, as if they were to run on a CPU."""
    trials = expand(study, lambda fields: "f", lambda fields: numerics)
    return Plan(study=study, profile=profile, reason=reason, trials=tuple(trials))


def environment(**changes: Any) -> Environment:
    known: dict[str, Any] = {
        "device_name": "a processor", "threads": 1, "workers": 1, "python_version": "3",
        "torch_version": "2.15", "numpy_version": "2", "ablate_version": "0", "commit": "abc",
    }  # fmt: skip
    return Environment(**{**known, **changes})


def unsealed(folder: ResultsFolder) -> None:
    """A study as versions before the seals left it."""
    folder.plan.write_text(json.dumps(json.loads(folder.plan.read_text())["content"]))
    folder.tables.unlink(missing_ok=True)


class Recorded:
    """A study whose trials are right about as many of 1,000 images as `correct` says, by (level, seed).

    `FAILED` records a failure, and `MISSING` nothing.
    """

    def __init__(
        self,
        root: Path,
        correct: Mapping[tuple[Any, int], int],
        *,
        factor: str = "epsilon",
        study: Mapping[str, Any] | None = None,
        profile: str = "quick",
        numerics: Numerics = CPU,
        fingerprint: str = "",
        ran_on: Mapping[str, Any] | None = None,
        **base: Any,
    ) -> None:
        self.folder, self.correct = ResultsFolder(root), correct
        self.folder.create()
        levels = tuple(dict.fromkeys(level for level, _ in correct))
        declared: dict[str, Any] = {
            "question": "?", "name": "tiny", "base": {**BASE, **base},
            "factors": {factor: levels}, "baseline": {factor: levels[0]},
            "seeds": tuple(dict.fromkeys(seed for _, seed in correct)),
        }  # fmt: skip
        made = Study(**{**declared, **(study or {})})
        trials = expand(
            made,
            lambda fields: sha256((fields.data + fingerprint).encode()).hexdigest(),
            lambda fields: numerics,
        )
        self.plan = Plan(study=made, profile=profile, reason="r", trials=tuple(trials))
        write_sealed(self.folder.plan, self.plan)
        for trial in trials:
            count = correct.get((trial.levels[factor], trial.seed), MISSING)
            if count == FAILED:
                failed = Record(trial=trial, status="oom", failure=Failure(message="too large"))
                write_record(self.folder, failed)
            elif count != MISSING:
                logits = np.eye(2, dtype=np.float32)[(np.arange(1000) >= count).astype(int)]
                ran = {"cost": COST, "environment": environment(**(ran_on or {}))}
                record = Record(trial=trial, status="complete", **ran)
                write_record(self.folder, record, Predictions(logits, np.zeros(1000, np.int64)))

    @functools.cached_property
    def run(self) -> Run:
        """What compare and check read, read once."""
        return read_run(self.folder)

    def accuracy(self, level: float) -> list[float]:
        return [count / 1000 for (own, _), count in self.correct.items() if own == level and count >= 0]


def counts(**arms: Sequence[int]) -> dict[tuple[float, int], int]:
    """Correct images by level and seed: `counts(e0=[600, 610], e1=[...])` is of ε = 0.0, 0.1, ..."""
    return {(int(name[1:]) / 10, seed): count for name, own in arms.items() for seed, count in enumerate(own)}


def printed(show: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """What it prints where there is no terminal."""
    console = Console(width=40)
    with console.capture() as capture:
        show(console, *arguments, **options)
    return capture.get()
