"""One trial as a worker does it: record, checkpoint, failures; and a study with its workers on CUDA."""

import itertools
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import CPU
from test_main import STUDY
from torch import Tensor
from torch.nn.functional import cross_entropy

import ablate.execution.trial
from ablate.data import prepare
from ablate.execution.trial import Heartbeat, Outcome, Task, run_trial, write_checkpoint
from ablate.store.records import Failure, read_records
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.trials import Numerics, build_trial
from ablate.tables.files import read_tables

BASE = {"data": "synthetic", "image_size": 16, "epochs": 3, "batch_size": 32, "lr": 0.05}


def make_task(tmp_path: Path, numerics: Numerics = CPU, **changes: Any) -> Task:
    data = prepare("synthetic", image_size=16, cache_dir=tmp_path / "cache")
    trial = build_trial({}, resolve(BASE, changes), 0, numerics, data.fingerprint)
    return Task(trial, data.folder, tmp_path / "trial.pt", workers=1)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path)


def run(task: Task, tell: Any = lambda heartbeat: None) -> Outcome:
    return run_trial(task, 0, tell)


def facts(outcome: Outcome) -> Any:
    record, predictions = outcome
    history = [epoch.model_dump(exclude={"seconds"}) for epoch in record.history]
    arrays = astuple(predictions) if predictions else ()
    engine = record.environment and record.environment.engine
    kept = [None if a is None else a.tobytes() for a in arrays]
    return record.status, engine, history, record.features, kept


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trial_gives_its_record_predictions_and_penultimate_layer(tmp_path: Path, precision: str) -> None:
    told: list[Heartbeat] = []
    numerics = CPU.model_copy(update={"precision": precision})
    record, predictions = run(make_task(tmp_path, numerics), told.append)
    assert (record.status, [epoch.epoch for epoch in record.history]) == ("complete", [0, 1, 2])
    assert [heartbeat.done for heartbeat in told if heartbeat.train_loss is not None] == [1, 2, 3]
    assert record.features
    assert predictions
    assert (record.features.dimension, record.features.classes) == (512, (0, 1, 2))
    logits, labels = predictions.logits, predictions.labels
    assert record.history[-1].valid_accuracy == np.mean(logits.argmax(1) == labels)
    assert (logits.dtype.name, predictions.projection_valid is None) == ("float32", False)


CAPTURED = pytest.param("cuda", "graph", {"optimizer": "ranger"}, marks=pytest.mark.cuda)


@pytest.mark.parametrize(("device", "engine", "changes"), [("cpu", "eager", {}), CAPTURED])
def test_a_stopped_trial_goes_on_bit_for_bit(
    device: Any, engine: Any, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tmp_path, CPU.model_copy(update={"device": device}), **changes)
    task = replace(task, engine=engine)
    whole = facts(run(task))
    assert whole[1] == engine
    monkeypatch.setattr(ablate.execution.trial, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        run(task, stop_in_epoch_3)
    assert task.checkpoint.exists()
    told: list[float] = []
    resumed = run(task, lambda heartbeat: told.append(heartbeat.done))
    assert told == [3]  # the first two epochs were not trained again
    assert facts(resumed) == whole


def test_arms_of_one_seed_start_from_the_same_weights(tmp_path: Path) -> None:
    """At ε = 0 both losses are the same function, so paired arms must train the same network."""
    losses = ("label_smoothing", "cross_entropy")
    one, other = (run(make_task(tmp_path, loss=loss, epsilon=0.0))[0].history[-1] for loss in losses)
    assert one.valid_nll == pytest.approx(other.valid_nll, rel=1e-4)


def stop_in_epoch_3(heartbeat: Heartbeat) -> None:
    if heartbeat.done == 3:
        raise KeyboardInterrupt


def test_a_bad_checkpoint_is_as_good_as_none(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, canary = facts(run(task)), task.checkpoint.with_name("canary")

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (canary,))

    for content in (b"", b"torn", pickle.dumps(Hostile())):
        task.checkpoint.write_bytes(content)
        assert facts(run(task)) == whole
    assert not canary.exists()
    monkeypatch.setattr(ablate.execution.trial, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        run(task, stop_in_epoch_3)
    kept = task.checkpoint.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(kept), 4):  # torch reads most of these as it likes
        task.checkpoint.write_bytes(kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :])
        assert facts(run(task)) == whole
    write_checkpoint(task, {"model": {"another.weight": torch.zeros(1)}})  # sound, and does not fit
    assert facts(run(task)) == whole
    torch.save({"trial_id": "0" * 16, "state": {}}, task.checkpoint)
    assert facts(run(task)) == whole


def test_divergence_and_running_out_of_memory_are_records_without_predictions(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, predictions = run(make_task(tmp_path, lr=1e30))
    assert (record.status, predictions) == ("diverged", None)
    message = "the loss is not finite at step 1 of epoch 0"
    assert record.failure == Failure(message=message, epoch=0, step=1)

    def too_big(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(ablate.execution.trial, "fit", too_big)
    record, predictions = run(task)
    assert (record.status, predictions) == ("oom", None)
    assert record.failure == Failure(message="CUDA out of memory.")


class Drawing(torch.nn.Module):
    """A network that draws its weights and its noise from all three global generators."""

    def __init__(self, *, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * image_size**2, num_classes)
        with torch.no_grad():
            self.head.weight *= random.random() + np.random.random()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits * (1 + drawn()) if self.training else logits


def drawn() -> float:
    return random.random() + float(np.random.random()) + float(torch.rand(()))


def drawing_loss(logits: Tensor, target: Tensor, *, epsilon: float, reduction: str) -> Tensor:
    """Cross-entropy whose gradient is scaled at random; its values, which the contract fixes, are not."""
    scale = 0.5 + drawn()
    return cross_entropy(scale * logits + (1 - scale) * logits.detach(), target, reduction=reduction)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        names: dict[str, Any] = {"arch": f"{__name__}:Drawing", "loss": f"{__name__}:drawing_loss"}
        yield make_task(tmp_path_factory.mktemp("drawing"), **names, epochs=2)


@given(before=st.integers(0, 2**32 - 1), draws=st.integers(0, 5), first=st.booleans(), other=st.booleans())
def test_what_foreign_code_draws_does_not_depend_on_what_a_worker_did_before(
    drawing: Task, before: int, draws: int, first: bool, other: bool
) -> None:
    expected = facts(run(drawing))
    if first:
        ablate.execution.trial._macs.cache_clear()  # a worker's first trial of a network builds it once more
    if other:
        seed_1 = replace(drawing, trial=drawing.trial.model_copy(update={"seed": 1}))
        assert facts(run(seed_1)) != expected
    torch.manual_seed(before)
    random.seed(before)
    np.random.seed(before)
    for _ in range(draws):
        drawn()
    assert facts(run(drawing)) == expected


SETTINGS = ["data=digits", "batch_size=64", "lr=0.002", "precision=float32"]


def whole_study(here: Path, *options: str) -> ResultsFolder:
    here.mkdir()
    (here / "tiny.py").write_text(STUDY)
    words = ["run", "tiny.py", "--profile", "quick", "--no-timing", "--seeds", "1", "--name", "one", *options]
    words += itertools.chain(*(("--set", setting) for setting in SETTINGS))
    own = {**os.environ, "ABLATE_CACHE": str(here.parent / "cache")}
    command = [sys.executable, "-m", "ablate", *words]
    ended = subprocess.run(command, cwd=here, env=own, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    variation = Path("tiny", "quick", "variations", "one")
    assert (here / "report" / variation / "index.html").is_file()
    return ResultsFolder(here / "results" / variation)


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_study_runs_on_cuda_to_its_report_as_on_the_cpu(engine: str, tmp_path: Path) -> None:
    """At a small rate: at 0.05 this network, whose maps are single pixels here, makes rounding visible."""
    folders = {"cuda": whole_study(tmp_path / "cuda", "--device", "cuda", "--engine", engine)}
    folders["cpu"] = whole_study(tmp_path / "cpu", "--device", "cpu", "--workers", "0")
    for device, folder in folders.items():
        records = read_records(folder).values()
        assert [record.status for record in records] == ["complete"] * 2
        assert {record.trial.numerics.device for record in records} == {device}
        versions = {record.environment and record.environment.cuda_version for record in records}
        assert (None in versions) == (device == "cpu")
    on_cuda, on_cpu = (read_tables(folder)["trials"].sort_values("epsilon") for folder in folders.values())
    assert set(on_cuda["engine"]) == {engine}
    np.testing.assert_allclose(on_cuda["nll"], on_cpu["nll"], rtol=1e-3)
    np.testing.assert_allclose(on_cuda["accuracy"], on_cpu["accuracy"], atol=0.01)
