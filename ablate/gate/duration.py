"""How long the missing trials of a plan should take, going by recorded ones that are like them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ablate.store.records import Record
from ablate.study.trials import Trial


@dataclass(frozen=True)
class Duration:
    """How long the missing trials should take.

    Attributes:
        seconds: of those whose cost is known, all workers busy; 0 where none is.
        known: missing trials whose cost follows from recorded ones.
        unknown: architectures of the others.
    """

    seconds: float
    known: int
    unknown: tuple[str, ...]


def expected_duration(missing: Sequence[Trial], records: Iterable[Record], *, workers: int) -> Duration:
    """Time of the missing trials, from recorded ones of their architecture, data, image size and arithmetic.

    The median of those with the same fields is taken, else of those with as many epochs, else of all, scaled
    by the epochs.

    Args:
        missing: the trials to come.
        records: whatever is recorded in the same folder.
        workers: trials at a time, at least 1.
    """
    measured = _measured_seconds(records)
    expected = [_expected_seconds(trial, measured) for trial in missing]
    known = [seconds for seconds in expected if seconds is not None]
    unknown = [trial.fields.arch for trial, seconds in zip(missing, expected, strict=True) if seconds is None]
    # No division over workers makes a single trial shorter.
    seconds = max(sum(known) / min(workers, len(known)), *known) if known else 0.0
    return Duration(seconds, len(known), tuple(dict.fromkeys(unknown)))


def _measured_seconds(records: Iterable[Record]) -> dict[object, list[float]]:
    """Seconds of complete trials, for each key of `_likenesses`; those of the last are per epoch."""
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        if record.status == "complete" and record.cost is not None:
            seconds = record.cost.train_seconds + record.cost.eval_seconds
            same, as_long, alike = _likenesses(record.trial)
            measured[same].append(seconds)
            measured[as_long].append(seconds)
            measured[alike].append(seconds / record.trial.fields.epochs)
    return measured


def _expected_seconds(trial: Trial, measured: Mapping[object, list[float]]) -> float | None:
    same, as_long, alike = _likenesses(trial)
    for likeness, factor in ((same, 1), (as_long, 1), (alike, trial.fields.epochs)):
        if likeness in measured:
            return factor * median(measured[likeness])
    return None


def _likenesses(trial: Trial) -> tuple[object, object, object]:
    """Keys that trials of like cost share, the closest first."""
    fields = trial.fields
    alike = (
        fields.arch,
        trial.fingerprint,
        fields.image_size,
        trial.numerics.device,
        trial.numerics.precision,
        trial.numerics.threads,
    )
    return (*alike, fields.model_dump_json()), (*alike, fields.epochs), alike
