"""The files of a study's results: their names, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ablate.errors import RecordError, ResultsError, StudyError, nearest
from ablate.study.fields import folder_name
from ablate.study.trials import Plan

Stored = TypeVar("Stored", bound=BaseModel)


@dataclass
class ResultsFolder:
    """The one place that knows the file names under results/<study>/<profile>/."""

    root: Path
    unwritten: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Tables by their files' names that follow from the records, where they could not be written."""

    def __post_init__(self) -> None:
        self.records = self.root / "records"  # one JSON file per trial
        self.predictions = self.root / "predictions"  # one npz file per complete trial
        self.checkpoints = self.root / "checkpoints"  # state of unfinished trials; emptied as they finish
        self.artefacts = self.root / "artefacts"  # of one's own training code, a folder per trial, and logs
        self.weights = self.root / "weights"  # trained networks, where they are kept
        self.plan = self.root / "study.json"  # the study as last run: its declaration and its planned trials
        self.timing = self.root / "timing.json"  # what a training step takes, from the exclusive pass
        self.lock = self.root / ".lock"  # held by the one driver that may write here

    def read(self, name: str) -> bytes:
        """What a file in the root holds, or would hold if it could be written."""
        return self.unwritten.get(name) or (self.root / name).read_bytes()

    def record_path(self, trial_id: str) -> Path:
        """The record of one trial."""
        return self.records / f"{trial_id}.json"

    def predictions_path(self, trial_id: str) -> Path:
        """The predictions of one trial."""
        return self.predictions / f"{trial_id}.npz"

    def checkpoint_path(self, trial_id: str) -> Path:
        """The checkpoint of one trial."""
        return self.checkpoints / f"{trial_id}.pt"

    def create(self) -> None:
        """Make the folders, and try them with a write; one that fails is a `ResultsError`."""
        folders = (self.records, self.predictions, self.checkpoints)
        make_writable(self.root, folders, "the results folder cannot be written", "--results")

    def remove_left_overs(self) -> None:
        """Remove what a killed writer left. Only for the holder of the lock: others may be writing."""
        for folder in (self.root, self.records, self.predictions, self.checkpoints):
            for left_over in folder.glob(f"*{TEMPORARY}"):
                left_over.unlink()


def below(root: Path, *names: str) -> Path:
    """A folder in another, of plain names; any other name, whoever gave it, is a `StudyError`."""
    try:
        return root.joinpath(*map(folder_name, names))
    except ValueError as error:
        raise StudyError(f"name: {error}, but {'/'.join(names)!r} came") from None


TEMPORARY = ".tmp"
TUNING_FILE = "tuning/tuning.json"
"""Below a results folder: the points of a search, before the study they lead to."""


def make_writable(root: Path, folders: Iterable[Path], fault: str, option: str) -> None:
    """Make folders below a root, and try it with a write; one that fails is a `ResultsError`."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise ResultsError(f"{root}: {fault} ({error.strerror}); choose another with {option}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in a folder that exists, in full or not at all, even when the machine stops.

    What the disk refuses is a `ResultsError`.
    """
    name = ""
    try:
        fail_point()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=TEMPORARY)
        with os.fdopen(handle, "wb") as file:
            file.write(content[: len(content) // 2])
            fail_point()
            file.write(content[len(content) // 2 :])
            file.flush()
            os.fsync(file.fileno())
        fail_point()
        os.chmod(name, 0o644)
        os.replace(name, path)
        fail_point()
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if not isinstance(error, OSError):
            raise
        remedy = "What is recorded is kept; make room, or choose another folder, and run the same command"
        raise ResultsError(f"{path}: cannot be written ({error.strerror}). {remedy}") from None


STEPS = itertools.count(1)
"""How often this process came to a moment at which it may be stopped by a test."""


def fail_point() -> None:
    """End here, or raise an OSError, if ABLATE_FAILPOINT says so: "7:kill", or "7:28", a full disk."""
    step, (asked, _, fault) = next(STEPS), os.environ.get("ABLATE_FAILPOINT", "").partition(":")
    if asked == str(step):
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(int(fault), os.strerror(int(fault)))


def read_stored(kind: type[Stored], path: Path, damaged: str) -> Stored | None:
    """What a JSON file holds, if it is there; a `RecordError` says `damaged`, {} being how many faults."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RecordError(f"{path}: {damaged.format(error.error_count())}") from None


def write_plan(folder: ResultsFolder, plan: Plan) -> None:
    """Store the study as it was last run."""
    write_atomically(folder.plan, (plan.model_dump_json(indent=1) + "\n").encode())


def read_plan(folder: ResultsFolder) -> Plan:
    """The study as it was last run. A folder without one, or with a damaged one, is a `RecordError`."""
    if plan := read_stored(Plan, folder.plan, "damaged ({} faults); run the study again"):
        return plan
    if (folder.root / TUNING_FILE).exists():
        raise RecordError(
            f"{folder.root}: its search has not ended, so there is nothing to report yet; the same "
            "`python -m ablate tune` goes on with it, and `python -m ablate status` says how far it is"
        )
    raise RecordError(f"{folder.root}: no study was run here; use `python -m ablate run` first")


def find_results(results: Path, study: str, profile: str | None) -> ResultsFolder:
    """The results of a study, of the only profile that was run or of the one named; else a `ResultsError`."""
    ran = sorted(folder.name for folder in _run_folders(results / study, "*"))
    if not ran:
        others = sorted({folder.parent.name for folder in _run_folders(results, "*/*")})
        raise ResultsError(
            f"{results / study}: no such study was run here (run: {', '.join(others) or 'none'}); "
            f"run it first, or name the folder with --results.{nearest(Path(study).stem, others)}"
        )
    known = f"{study}: was run with profiles {', '.join(ran)}"
    if profile is None and len(ran) > 1:
        raise ResultsError(f"{known}; choose one with --profile")
    if profile is not None and profile not in ran:
        raise ResultsError(f"{known}, but --profile {profile} was given.{nearest(profile, ran)}")
    return ResultsFolder(results / study / (profile or ran[0]))


def _run_folders(root: Path, pattern: str) -> set[Path]:
    """The results folders below, of studies that were run or are being tuned."""
    tuned = {path.parent.parent for path in root.glob(f"{pattern}/{TUNING_FILE}")}
    return tuned | {path.parent for path in root.glob(f"{pattern}/study.json")}
