"""The files of a study's results: their names, and writing them whole or not at all."""

import contextlib
import hashlib
import itertools
import json
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from ablate.errors import RecordError, ResultsError, StudyError, first_line, nearest
from ablate.study.fields import folder_name
from ablate.study.trials import Plan

Stored = TypeVar("Stored", bound=BaseModel)


@dataclass
class ResultsFolder:
    """The file names under results/STUDY/PROFILE/, and of its variations, which share what trials left."""

    root: Path
    unwritten: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Tables by their files' names that follow from the records, where they could not be written."""

    def __post_init__(self) -> None:
        whole = self.root.resolve()  # a link may lead to a variation
        self.shared = whole.parents[1] if whole.parent.name == VARIATIONS else self.root
        self.records = self.shared / "records"  # one JSON file per trial
        self.predictions = self.shared / "predictions"  # one npz file per complete trial
        self.checkpoints = self.shared / "checkpoints"  # state of unfinished trials; emptied as they finish
        self.artefacts = self.shared / "artefacts"  # of one's own training code, a folder per trial, and logs
        self.logs = self.shared / "logs"  # what trials printed, a file per worker
        self.nodes = self.logs / "nodes.json"  # the machines of the last run on a cluster
        self.weights = self.shared / "weights"  # trained networks, where they are kept
        self.plan = self.root / "study.json"  # the study as last run: its declaration and its planned trials
        self.tuning = self.root / "tuning" / "tuning.json"  # the points of a search, before the study
        self.timing = self.root / "timing.json"  # what a training step takes, from the exclusive pass
        self.tables = self.root / "tables.json"  # the digest of each table
        self.lock = self.shared / ".lock"  # held by the one driver that may write here, if none has a shard's

    @property
    def names(self) -> tuple[str, ...]:
        """What commands name it by: the study, the profile and, of a variation, that."""
        shared, own = self.shared.resolve(), () if self.shared == self.root else (self.root.name,)
        return (shared.parent.name, shared.name, *own)

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

    def shard_lock(self, part: int, parts: int) -> Path:
        """Held by a driver of one shard, beside those of its siblings; the lock itself where there is one."""
        return self.lock if parts == 1 else self.shared / f"{self.lock.name}-{part}-of-{parts}"

    def locks(self) -> Iterator[Path]:
        """Those that drivers hold or have held."""
        return self.shared.glob(f"{self.lock.name}*")

    def create(self) -> None:
        """Make the folders, and try them with a write; one that fails is a `ResultsError`."""
        folders = (self.root, self.records, self.predictions, self.checkpoints)
        make_writable(self.root, folders, "the results folder cannot be written", "--results")

    def remove_left_overs(self) -> None:
        """Remove what a killed writer left. Only for the holder of the lock: others may be writing."""
        for folder in (self.root, self.shared, self.records, self.predictions, self.checkpoints):
            for left_over in folder.glob(f"*{TEMPORARY}"):
                left_over.unlink()


def below(root: Path, *names: str) -> Path:
    """A folder in another, of plain names; any other name, whoever gave it, is a `StudyError`."""
    try:
        return root.joinpath(*map(folder_name, names))
    except ValueError as error:
        raise StudyError(f"name: {error}, but {'/'.join(names)!r} came") from None


TEMPORARY = ".tmp"
VARIATIONS = "variations"
"""Below a results folder, and a report's: the study run with other settings or seeds, each by its name."""
LAYOUT = 1
"""Of the sealed JSON files; raised when one changes in a way that an earlier version would misread."""


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
    """Write a file in full or not at all, even if the machine stops; a disk's refusal is a `ResultsError`."""
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


def content_digest(content: Any) -> str:
    """The digest of JSON values, however they are laid out in a file."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@contextlib.contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """Whatever reading a file raises as a `RecordError` with what to do; but for what a disk refuses."""
    try:
        if path.exists() and not path.is_file():
            raise RecordError(f"{path}: is no file; {remedy}")
        yield
    except (OSError, RecordError):
        raise
    except Exception as error:
        fault = first_line(error) or type(error).__name__
        raise RecordError(f"{path}: damaged or altered ({fault}); {remedy}") from None


def write_sealed(path: Path, content: BaseModel) -> None:
    """Keep values in a JSON file, with their digest and the version of its layout."""
    stored = {"layout": LAYOUT, "content": json.loads(content.model_dump_json())}
    whole = {"digest": content_digest(stored), **stored}
    write_atomically(path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def read_sealed(kind: type[Stored], path: Path, remedy: str) -> Stored | None:
    """What a JSON file holds, if it is there, in earlier versions unsealed; a `RecordError` if damaged."""
    if not path.exists():
        return None
    with readable(path, remedy):
        stored = json.loads(path.read_bytes())
        if "digest" in stored:
            digest = stored.pop("digest")
            if digest != content_digest(stored) or stored["layout"] > LAYOUT:
                raise ValueError("it does not match its digest, or is of a later version")
            stored = stored["content"]
        return kind.model_validate_json(json.dumps(stored))


def is_sealed(path: Path) -> bool:
    """Whether a JSON file was written with a digest."""
    return path.exists() and b'"digest"' in path.read_bytes()[:20]


def read_plan(folder: ResultsFolder) -> Plan:
    """The study as it was last run. A folder without one, or with a damaged one, is a `RecordError`."""
    if plan := read_sealed(Plan, folder.plan, "run the study again"):
        return plan
    if folder.tuning.exists():
        raise RecordError(
            f"{folder.root}: its search has not ended, so there is nothing to report yet; the same "
            "`python -m ablate tune` goes on with it, and `python -m ablate status` says how far it is"
        )
    raise RecordError(f"{folder.root}: no study was run here; use `python -m ablate run` first")


def find_study(results: Path, named: str, profile: str | None = None) -> ResultsFolder:
    """The results that a user names as STUDY[/PROFILE[/VARIATION]] or by folder; a `ResultsError` helps."""
    for path in (results / named, Path(named)) if profile is None else ():
        for root in (path, path.parent / VARIATIONS / path.name):
            if (root / "study.json").is_file():
                return ResultsFolder(root)
    study, part = named, profile or ""
    if profile is None and not _run_folders(results / named):
        study, _, part = named.partition("/")
    ran = {"/".join(folder.names[1:]): folder for folder in _run_folders(results / study)}
    if not ran:
        others = sorted({folder.names[0] for path in results.glob("*") for folder in _run_folders(path)})
        raise ResultsError(
            f"{results / named}: no such study was run here (run: {', '.join(others) or 'none'}); "
            f"run it first, or name the folder with --results.{nearest(Path(named).stem, others)}"
        )
    asked = [name for name in ran if part in ("", name, name.partition("/")[0])]
    chosen = [name for name in asked if "/" not in name] or asked  # a study before its variations
    if len(chosen) == 1:
        return ran[chosen[0]]
    known = f"{study}: was run as {', '.join(ran)}"
    if part and not chosen:
        raise ResultsError(f"{known}, but {part} was asked for.{nearest(part, ran)}")
    raise ResultsError(f"{known}; choose one, as {study}/{(chosen or [*ran])[0]}")


def _run_folders(study: Path) -> list[ResultsFolder]:
    """The results folders of a study that was run or is being tuned, and those of its variations."""
    files = [*study.glob("*/study.json"), *study.glob(f"*/{VARIATIONS}/*/study.json")]
    roots = {path.parent for path in files} | {path.parents[1] for path in study.glob("*/tuning/tuning.json")}
    return [ResultsFolder(root) for root in sorted(roots)]
