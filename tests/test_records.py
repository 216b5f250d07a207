"""Records: written once and whole, read only when they are what they claim; and which code they came from."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from recorded_study import trial

import ablate
from ablate.errors import RecordError, ResultsError
from ablate.store.records import (
    MOST_BYTES,
    Cost,
    Epoch,
    Failure,
    Predictions,
    Record,
    Scatter,
    put_aside,
    quarantine,
    read_predictions,
    read_record,
    read_records,
    record_bytes,
    write_record,
)
from ablate.store.results import ResultsFolder, write_atomically

PREDICTIONS = Predictions(np.eye(3, dtype=np.float32), np.arange(3))
EPOCH = Epoch(
    epoch=0, train_loss=1.5, train_accuracy=0.5, valid_loss=1.25, valid_accuracy=0.5, valid_nll=1.0,
    bin_count=(1,), bin_confidence=(0.5,), bin_correct=(1,), lr=0.4, seconds=0.1,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    folder = ResultsFolder(tmp_path / "results")
    folder.create()
    return folder


def stored(folder: ResultsFolder, seed: int = 0) -> Record:
    write_record(folder, Record(trial=trial(seed), status="complete", history=(EPOCH,)), PREDICTIONS)
    return read_record(folder.record_path(trial(seed).trial_id))


@pytest.mark.parametrize("published", ["seed_notebook/cpu-float32", "recipes/cpu-64px"])
def test_published_records_come_back_as_they_are(published: str, folder: ResultsFolder) -> None:
    """Those of the second run were written before there were features and projected points."""
    kept = ResultsFolder(Path(__file__).parent.parent / "results" / "reference" / published)
    records = read_records(kept)
    for record in records.values():
        predictions = read_predictions(kept, record)
        right = predictions.logits.argmax(1) == predictions.labels
        assert right.mean() == record.history[-1].valid_accuracy
        older = published == "recipes/cpu-64px"
        assert (record.features is None, predictions.projection_valid is None) == (older, older)
        write_record(folder, record, predictions)
        again = read_record(folder.record_path(record.trial_id))
        assert again.model_copy(update={"predictions_sha256": record.predictions_sha256}) == record
        for name, value in vars(read_predictions(folder, again)).items():
            np.testing.assert_array_equal(value, getattr(predictions, name), strict=value is not None)
    assert read_records(folder).keys() == records.keys()


def test_predictions_without_points_are_stored_as_they_always_were(folder: ResultsFolder) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, logits=PREDICTIONS.logits, labels=PREDICTIONS.labels)
    assert stored(folder).predictions_sha256 == hashlib.sha256(buffer.getvalue()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_in_a_record_is_finite(value: float) -> None:
    for kind in (Epoch, Scatter, Cost):
        with pytest.raises(ValidationError, match="finite"):
            kind.model_validate(dict.fromkeys(kind.model_fields, value))


def test_a_record_is_written_once_and_only_a_complete_one_has_predictions(folder: ResultsFolder) -> None:
    for status, predictions in (("complete", None), ("diverged", PREDICTIONS)):
        with pytest.raises(RecordError, match="a complete trial has predictions or metrics, any other"):
            write_record(folder, Record(trial=trial(), status=status), predictions)
    assert read_records(folder) == {}
    failure = Failure(message="the loss is not finite", epoch=1, step=7)
    write_record(folder, Record(trial=trial(), status="diverged", failure=failure))
    assert read_records(folder)[trial().trial_id].failure == failure
    with pytest.raises(RecordError, match="never changed"):
        write_record(folder, Record(trial=trial(), status="oom"))


def test_a_record_cut_anywhere_or_with_any_byte_flipped_is_never_another_value(folder: ResultsFolder) -> None:
    path = folder.record_path(trial().trial_id)
    content = record_bytes(Record(trial=trial(), status="killed", failure=Failure(message="ε — gone")))
    path.write_bytes(content)
    expected = read_record(path)

    def refused(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        try:
            assert read_record(path) == expected
        except RecordError:
            return True
        return False

    places = range(len(content))
    assert sum(refused(content[:place]) for place in places) >= len(content) - 1  # the last newline is spare
    flips = (content[:n] + bytes([content[n] ^ 0x04]) + content[n + 1 :] for n in places)
    assert sum(map(refused, flips)) > 0.8 * len(content)


@pytest.mark.parametrize(
    ("which", "kept_bytes"), [("predictions", -1), ("predictions", None), ("records", 9)]
)
def test_damage_costs_only_its_own_trial(folder: ResultsFolder, which: str, kept_bytes: int | None) -> None:
    kept, lost = stored(folder, 0), stored(folder, 1)
    (path,) = (folder.root / which).glob(f"{lost.trial_id}.*")
    content = path.read_bytes()
    path.unlink()
    if kept_bytes is not None:
        path.write_bytes(content[:kept_bytes])
    records, (line,) = quarantine(folder)
    assert lost.trial_id in line
    assert records == read_records(folder) == {kept.trial_id: kept}
    assert (folder.root / "corrupt" / f"{lost.trial_id}.0.json").exists()
    assert stored(folder, 1) == lost
    assert quarantine(folder) == (read_records(folder), [])


def test_a_flipped_byte_anywhere_in_predictions_is_found_as_a_run_starts(folder: ResultsFolder) -> None:
    record = stored(folder)
    path, aside = folder.predictions_path(record.trial_id), folder.root / "corrupt"
    whole, kept = path.read_bytes(), folder.record_path(record.trial_id).read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        folder.record_path(record.trial_id).write_bytes(kept)
        assert quarantine(folder)[0] == {}
        shutil.rmtree(aside)


def test_odd_things_among_records_are_put_aside_and_name_their_fault(folder: ResultsFolder) -> None:
    kept = stored(folder)
    for name in ("0" * 16, "1" * 16):
        folder.record_path(name).mkdir()
        (folder.record_path(name) / "inside").touch()
    os.mkfifo(folder.record_path("2" * 16))
    folder.record_path("3" * 16).write_text("[" * 200_000)
    for _ in range(2):
        records, faults = quarantine(folder)
        assert records == {kept.trial_id: kept}
    assert not faults
    names = sorted(path.name for path in (folder.root / "corrupt").iterdir())
    assert names == [f"{number * 16}.0.json" for number in "0123"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"logits": np.eye(3)[:2].astype(np.float32)},
        {"logits": np.array([[{}, None]], object), "labels": np.zeros(1, np.int64)},
        {"logits": np.eye(3, 2, dtype=np.float32), "labels": np.zeros(3, np.int64)},
        {"logits": np.eye(3), "labels": np.arange(3)},
        {"logits": np.eye(3, dtype=np.float32), "labels": np.arange(3) + 1},
        {"logits": np.zeros((1, MOST_BYTES // 1024), np.float32), "labels": np.zeros(1, np.int64)},
        {
            "logits": PREDICTIONS.logits,
            "labels": np.arange(3),
            "projection_train": np.zeros((2, 3), np.float32),
        },
        None,
    ],
)
def test_predictions_that_no_trial_left_are_refused_where_they_are_read(
    folder: ResultsFolder, arrays: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.store.records.MOST_BYTES", MOST_BYTES // 1024)
    buffer = io.BytesIO(b"no zip")
    if arrays is not None:
        np.savez_compressed(buffer, **arrays)
    path = folder.predictions_path(trial().trial_id)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = Record(trial=trial(), status="complete", class_names=("a", "b", "c"), predictions_sha256=digest)
    write_atomically(folder.record_path(record.trial_id), record_bytes(record))
    with pytest.raises(RecordError, match="move it and its record away"):
        read_predictions(folder, record)


def test_what_a_disk_refuses_now_is_not_put_aside(
    folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    stored(folder)
    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(RecordError, match="Input/output error"):
        read_records(folder)
    with pytest.raises(OSError, match="Input/output error"):
        quarantine(folder)
    assert len([*folder.records.iterdir()]) == 1


def test_what_is_put_aside_twice_is_kept_twice(folder: ResultsFolder) -> None:
    for _ in range(2):
        put_aside(folder, stored(folder).trial_id, "attempts")
    names = sorted(path.name.partition(".")[2] for path in (folder.root / "attempts").iterdir())
    assert names == ["0.json", "0.npz", "1.json", "1.npz"]


def test_records_that_are_unreadable_or_under_another_name_are_refused(folder: ResultsFolder) -> None:
    for seed in (0, 1, 2):
        folder.record_path(stored(folder, seed).trial_id).write_bytes(b"{")
    with pytest.raises(RecordError, match=r"damaged.*\n.*damaged.*\n.*damaged"):
        read_records(folder)
    other = folder.record_path(stored(folder, 3).trial_id).rename(folder.record_path("0" * 16))
    with pytest.raises(RecordError, match="holds trial"):
        read_record(other)


@pytest.mark.parametrize("step", ["fdopen", "fsync", "replace"])
def test_a_failed_write_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fails(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(ResultsError, match=r"a.json: cannot be written \(No space .*recorded is kept"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


SOURCE = Path(ablate.__file__).parent
ASK = "from ablate.store.provenance import source_commit; print(source_commit())"


def call(tree: Path, *words: str, told: str = "") -> str:
    own = {"GIT_CEILING_DIRECTORIES": str(tree.parent), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    variables = {**os.environ, **own, "ABLATE_COMMIT": told}
    ended = subprocess.run(words, cwd=tree, env=variables, check=True, capture_output=True, text=True)
    return ended.stdout.strip()


def test_a_commit_is_gits_and_without_git_what_the_environment_says(tmp_path: Path) -> None:
    """In a copy, without .git, of what of ablate's tree tells its commit."""
    (tmp_path / "ablate" / "store").mkdir(parents=True)
    shutil.copy(SOURCE / "store" / "provenance.py", tmp_path / "ablate" / "store")
    for package in ("ablate", "ablate/store"):
        (tmp_path / package / "__init__.py").write_text("")

    def git(*words: str) -> str:
        return call(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=a@b", *words)

    def commit(told: str = "") -> str:
        return call(tmp_path, sys.executable, "-c", ASK, told=told)

    assert (commit("0123456789ab"), commit()) == ("0123456789ab", "None")
    git("init", "-q")
    assert commit("0123456789ab") == "0123456789ab"  # in a repository, but nobody's commit holds it
    git("add", ".")
    git("commit", "-qm", "all")
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit("0123456789ab") == commit() == head
    (tmp_path / "ablate" / "__init__.py").write_text("# changed\n")
    assert commit("0123456789ab") == f"{head}-dirty"
