"""The truth about trials: one immutable JSON record each, and predictions beside it, whole or not at all."""

import filecmp
import gc
import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Container
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from ablate.errors import RecordError, ResultsError, bounded
from ablate.store.results import ResultsFolder, content_digest, read_plan, readable, write_atomically
from ablate.study.fields import Frozen
from ablate.study.trials import Trial

Status = Literal["complete", "diverged", "oom", "killed", "timeout", "error"]
MISSING, UNREADABLE = "missing", "unreadable"
"""What a planned trial is called whose record is not there, or is damaged as its predictions may be."""
TO_RUN_AGAIN = "move it and its record away to run the trial again"
MOST_BYTES = 2**33
"""That a trial's predictions may have in memory; more would be of a file made to fill it."""


class Epoch(Frozen, allow_inf_nan=False):
    """What one epoch measured. Sums over confidence bins allow any binned calibration error later."""

    epoch: int = Field(description="0 is the first")
    train_loss: float = Field(description="mean training loss of the epoch, as trained (smoothed)")
    train_accuracy: float = Field(description="accuracy on the training batches as they were seen")
    valid_loss: float = Field(description="mean loss on the reported split with the training loss (smoothed)")
    valid_accuracy: float = Field(description="accuracy on the reported split")
    valid_nll: float = Field(description="mean unsmoothed negative log-likelihood, nats")
    bin_count: tuple[int, ...] = Field(description="images per confidence bin, equal widths over [0, 1]")
    bin_confidence: tuple[float, ...] = Field(description="sum of confidence per bin")
    bin_correct: tuple[int, ...] = Field(description="correct images per bin")
    lr: float = Field(description="learning rate at the end of the epoch")
    seconds: float = Field(description="training part of the epoch, evaluation excluded")


class Cost(Frozen, allow_inf_nan=False):
    """What a trial cost, on a machine that it may have shared with other trials."""

    step_ms: float = Field(description="median time of a training step, ms, first epoch's warm-up excluded")
    step_ms_p20: float = Field(description="20th percentile of the same")
    step_ms_p80: float = Field(description="80th percentile of the same")
    images_per_second: float = Field(description="training images over training seconds")
    peak_memory_mb: float = Field(description="most memory held: CUDA allocations, or the worker's pages")
    train_seconds: float = Field(description="training, without evaluation")
    eval_seconds: float = Field(description="evaluation")


class Scatter(Frozen, allow_inf_nan=False):
    """Scatter of one split's penultimate features; every class counts the same.

    `within` and `between` are of directions, features divided by their length: scale-free, 0 to 1, with a sum
    of at most 1. between / (within + between) is the class separation R² of Kornblith et al. 2021, equation
    11, https://arxiv.org/abs/2010.16402. The others are of the features as they are. A template is a row of
    the last layer's weights: what lies outside the span of their differences does not change a softmax.
    """

    within: float = Field(description="mean cosine distance between images of one class; 0 is one direction")
    between: float = Field(description="the classes' part of the mean cosine distance between all images")
    trace_within: float = Field(description="trace of the mean of the classes' covariances")
    trace_between: float = Field(description="trace of the covariance of the class means")
    squared_mean: float = Field(description="squared length of the mean of the class means")
    template_within: float = Field(description="as trace_within, in the span of the templates' differences")
    template_between: float = Field(description="as trace_between, in the span of the templates' differences")


class Features(Frozen, allow_inf_nan=False):
    """What the input of a trained network's last linear layer shows; the points are with the predictions."""

    dimension: int = Field(description="width of the layer")
    valid: Scatter = Field(description="of the reported split")
    train: Scatter = Field(description="of at most 4,096 training images, with the labels trained on")
    classes: tuple[int, ...] = Field(default=(), description="whose templates span the projection's plane")
    templates: tuple[tuple[float, float], ...] = Field(
        default=(), description="their coordinates; the logits of two are equal at p · (t_j - t_i) = 0"
    )


class Environment(Frozen):
    """Where and with what a trial ran. No host name, no path."""

    device_name: str = Field(description="processor or GPU model")
    threads: int = Field(description="CPU threads of the trial")
    workers: int = Field(description="trials that could run at the same time")
    python_version: str
    torch_version: str
    torchvision_version: str | None = Field(default=None, description="some networks are torchvision's")
    numpy_version: str
    cuda_version: str | None = None
    ablate_version: str
    commit: str | None = Field(default=None, description="commit of ablate's source, -dirty when changed")
    engine: str = Field(default="eager", description="of steps: eager, graph, or eager and why not graph")
    warm: bool = Field(default=False, description="own code ran in a process that may have run others")


class Failure(Frozen):
    """Why a trial has no result."""

    message: Annotated[str, AfterValidator(bounded)]
    epoch: int | None = Field(default=None, description="epoch in which it failed")
    step: int | None = Field(default=None, description="step within that epoch, when known")


class Record(Frozen, allow_inf_nan=False):
    """Everything known about one trial: what was asked, what happened, and digests of what it left."""

    schema_version: int = 1
    trial: Trial
    status: Status
    attempts: int = Field(default=1, ge=1, description="how often it was started in the run that ended it")
    history: tuple[Epoch, ...] = ()
    cost: Cost | None = None
    environment: Environment | None = None
    parameters: int | None = Field(default=None, description="trainable parameters of the network")
    macs: int | None = Field(default=None, description="multiply-adds of one image's forward pass")
    class_names: tuple[str, ...] = ()
    features: Features | None = Field(default=None, description="None without a last linear layer")
    failure: Failure | None = None
    metrics: dict[str, float] = Field(default={}, description="numbers that the trial reports itself")
    log: tuple[dict[str, float], ...] = Field(default=(), description="what one's own code logged, by epoch")
    seconds: float | None = Field(default=None, description="of one's own training code: how long it took")
    predictions_sha256: str | None = Field(default=None, description="digest of predictions/<trial_id>.npz")

    @property
    def trial_id(self) -> str:
        """The identity of the trial, which is also its file's name."""
        return self.trial.trial_id

    @property
    def has_predictions(self) -> bool:
        """Whether a file of predictions belongs to it; numbers alone are a result too."""
        return self.status == "complete" and not (self.metrics and self.predictions_sha256 is None)


@dataclass(frozen=True)
class Predictions:
    """What a trained network says of N reported images; labels are class ids.

    A projection is of up to 200 images of each of three classes, in the plane of their templates, or None.
    """

    logits: NDArray[np.float32]  # [N, K]
    labels: NDArray[np.int64]  # [N]
    projection_valid: NDArray[np.float32] | None = None  # [n, 2]
    projection_valid_labels: NDArray[np.int64] | None = None  # [n]
    projection_train: NDArray[np.float32] | None = None  # [m, 2]
    projection_train_labels: NDArray[np.int64] | None = None  # [m]


def write_record(folder: ResultsFolder, record: Record, predictions: Predictions | None = None) -> None:
    """Store a trial for good, once: its predictions first, then the record that vouches for them."""
    path = folder.record_path(record.trial_id)
    if path.exists():
        raise RecordError(f"{path}: the trial is recorded already; a record is never changed")
    scored = predictions is not None or bool(record.metrics)
    if (record.status == "complete") != scored:
        raise RecordError(f"{path}: a complete trial has predictions or metrics, any other has none")
    if predictions is not None:
        buffer = io.BytesIO()
        arrays = {name: value for name, value in vars(predictions).items() if value is not None}
        np.savez_compressed(buffer, **arrays)
        content = buffer.getvalue()
        write_atomically(folder.predictions_path(record.trial_id), content)
        record = record.model_copy(update={"predictions_sha256": hashlib.sha256(content).hexdigest()})
    write_atomically(path, record_bytes(record))


def record_bytes(record: Record) -> bytes:
    """A record as JSON with its own digest, so that a damaged file is never taken for a value."""
    later: dict[str, Any] = {
        name: True for name in ("metrics", "log", "seconds") if not getattr(record, name)
    }
    if record.environment is not None and not record.environment.warm:
        later["environment"] = {"warm"}
    content = json.loads(record.model_dump_json(exclude=later))
    whole = {"digest": content_digest(content), "record": content}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def read_record(path: Path) -> Record:
    """Read one record and check it against its digest and its file name; else it is a `RecordError`."""
    with readable(path, "move it away to run it again"):
        stored = json.loads(path.read_bytes())
        content, digest = stored["record"], stored["digest"]
        if content_digest(content) != digest:
            raise ValueError("the record does not match its digest")
        record = Record.model_validate(content)
        if record.trial_id != path.stem:
            raise ValueError(f"it holds trial {record.trial_id}")
        return record


def vouched_predictions(folder: ResultsFolder, record: Record) -> bytes:
    """The file of a complete trial's predictions; one its record does not vouch for is a `RecordError`."""
    path = folder.predictions_path(record.trial_id)
    with readable(path, TO_RUN_AGAIN):
        if not path.exists():
            raise RecordError(f"{path}: the predictions of a complete trial are missing")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.predictions_sha256:
            raise RecordError(f"{path}: the predictions do not match the digest in their record")
        return content


def read_predictions(folder: ResultsFolder, record: Record) -> Predictions:
    """A complete trial's predictions; those that its record does not vouch for are a `RecordError`."""
    content = vouched_predictions(folder, record)
    with readable(folder.predictions_path(record.trial_id), TO_RUN_AGAIN):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
            known = {field.name for field in fields(Predictions)} & set(arrays)
            predictions = Predictions(**{name: arrays[name] for name in known})
        _check_shapes(record, predictions)
        return predictions


def _check_shapes(record: Record, of: Predictions) -> None:
    """ValueError if the arrays are not those of so many images and the record's classes."""
    classes = len(record.class_names) or of.logits.shape[1]
    pairs = [(of.logits, of.labels, classes), (of.projection_valid, of.projection_valid_labels, 2)]
    for values, labels, width in (*pairs, (of.projection_train, of.projection_train_labels, 2)):
        if values is None or labels is None:
            sound = values is None and labels is None
        else:
            kinds = (values.dtype.name, labels.dtype.name) == ("float32", "int64")
            sound = kinds and (values.shape, labels.shape) == ((len(values), width), (len(values),))
            sound = sound and bool(((labels >= 0) & (labels < classes)).all())
        if not sound:
            raise ValueError(f"expected float32 [n, {width}] and labels [n] below {classes}, others came")


def read_records(folder: ResultsFolder) -> dict[str, Record]:
    """Every record of a folder by trial_id; a `RecordError` names all that cannot be read."""
    records, faults = read_available(folder)
    if faults:
        raise RecordError("\n".join(faults.values()))
    return records


def quarantine(
    folder: ResultsFolder, only: Container[str] | None = None
) -> tuple[dict[str, Record], list[str]]:
    """The sound records by trial_id, and a line for each that, or whose predictions, went to corrupt/."""
    records, faults = read_available(folder, only, with_predictions=True)
    for trial_id in faults:
        put_aside(folder, trial_id, "corrupt")
    return records, list(faults.values())


def read_available(
    folder: ResultsFolder, only: Container[str] | None = None, *, with_predictions: bool = False
) -> tuple[dict[str, Record], dict[str, str]]:
    """The records there are now, of all or `only` of some trials, and what is wrong with others.

    Both by trial_id; one that is put aside meanwhile is no fault.
    """
    records, faults = {}, {}
    # Those with predictions are put aside where they are damaged: not for a disk that fails now.
    faulty = RecordError if with_predictions else (RecordError, OSError)
    collects = gc.isenabled()
    gc.disable()  # records have no cycles, and looking for them among thousands doubles a read
    try:
        for path in sorted(folder.records.glob("*.json")):
            if only is not None and path.stem not in only:
                continue
            try:
                record = read_record(path)
                if with_predictions and record.has_predictions:
                    vouched_predictions(folder, record)  # the arrays are checked where they are used
                records[path.stem] = record
            except FileNotFoundError:
                continue
            except faulty as error:
                faults[path.stem] = str(error)
    finally:
        if collects:
            gc.enable()
    return records, faults


def put_aside(folder: ResultsFolder, trial_id: str, place: str) -> None:
    """Move a trial's record, and its predictions where there are any, to root/<place>/, numbered."""
    target = folder.shared / place
    target.mkdir(exist_ok=True)
    for path in (folder.record_path(trial_id), folder.predictions_path(trial_id)):
        if path.exists():
            numbered = (target / f"{path.stem}.{number}{path.suffix}" for number in itertools.count())
            os.replace(path, next(free for free in numbered if not free.exists()))


def publish_results(folder: ResultsFolder, target: Path, *, predictions: bool) -> ResultsFolder:
    """Copy a study's plan, planned records and tables to `target`, where others are a `ResultsError`."""
    planned = {trial.trial_id for trial in read_plan(folder).trials}
    records = {name: record for name, record in read_records(folder).items() if name in planned}
    if missing := len(planned) - len(records):
        raise ResultsError(f"{folder.root}: {missing} planned trials have not run; run the study to its end")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = ResultsFolder(Path(scratch) / target.name)
        made.records.mkdir(parents=True)
        for trial_id, record in records.items():
            shutil.copyfile(folder.record_path(trial_id), made.record_path(trial_id))
            if record.has_predictions:
                read_predictions(folder, record)  # checks them
                if predictions:
                    made.predictions.mkdir(exist_ok=True)
                    shutil.copyfile(folder.predictions_path(trial_id), made.predictions_path(trial_id))
        for path in [folder.plan, folder.tables, *folder.root.glob("*.csv")]:
            shutil.copyfile(path, made.root / path.name)
        if target.exists():
            there = ResultsFolder(target).records
            names = [path.name for path in made.records.iterdir()]
            others = {path.name for path in there.glob("*")} - {*names}
            if others or filecmp.cmpfiles(made.records, there, names, shallow=False)[0] != names:
                raise ResultsError(
                    f"{target}: holds other records; choose another name with --as, or remove it first"
                )
            shutil.rmtree(target)
        made.root.rename(target)
    return ResultsFolder(target)
