"""How long the missing trials of a plan should take, going by recorded ones that are like them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        if record.status == "complete" and record.cost is not None:
            for likeness, epochs in _likenesses(record.trial):
                measured[likeness].append((record.cost.train_seconds + record.cost.eval_seconds) / epochs)
    known, unknown = [], dict[str, None]()
    for trial in missing:
        close = [(likeness, epochs) for likeness, epochs in _likenesses(trial) if likeness in measured]
        if close:
            likeness, epochs = close[0]
            known.append(epochs * median(measured[likeness]))
        else:
            unknown[trial.fields.arch] = None
    # No division over workers makes a single trial shorter.
    seconds = max(sum(known) / min(workers, len(known)), *known) if known else 0.0
    return Duration(seconds, len(known), tuple(unknown))


def _likenesses(trial: Trial) -> Iterator[tuple[object, int]]:
    """Keys that trials of like cost share, the closest first, and by how many epochs their times are told."""
    fields, numerics = trial.fields, trial.numerics
    machine = numerics.device, numerics.precision, numerics.threads
    alike = (fields.arch, trial.fingerprint, fields.image_size, *machine)
    yield (*alike, fields.model_dump_json()), 1
    yield (*alike, fields.epochs), 1
    yield alike, fields.epochs
