"""An epoch of `seed_cnn` on Imagenette: two trials of ours at a time, beside the textbook's loop.

Ours are two processes of one thread each, as `ablate run` has them, in the precision that the machine
resolves; a turn trains two networks. The textbook's loop (`textbook.py`) is float32, its images decoded by
two processes of a `DataLoader`. It has a process of its own, with torch's own memory settings, for 1 and for
2 threads; the faster is what ours is divided by. Only an epoch's training is timed, all of it warm.

`--images` says how many of an epoch's images are timed, 0 all of them. With few, the loader's first batch,
which nothing hides, weighs more than in a whole epoch: figures to publish are of all images.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ablate.data import Dataset
from ablate.execution.prepare import Inputs
from ablate.execution.trial import first_step, ready_device
from ablate.study.fields import resolve
from ablate.study.trials import Trial
from ablate.train.step import Step
from benchmarks import textbook
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer

AT_A_TIME = 2
CHECKED_IMAGES = 32
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
FIELDS = {"data": "imagenette-160", "image_size": textbook.SIDE, "arch": "seed_cnn", "recipe": "source"}
SET = {"batch_size": textbook.BATCH, "lr": textbook.RATE, "epsilon": textbook.EPSILON}


@pytest.mark.skipif(
    "ABLATE_DATA_DIR" not in os.environ, reason="ABLATE_DATA_DIR names no folder with the Imagenette images"
)
def test_epoch(compare: Compare, pytestconfig: pytest.Config) -> None:
    """Gather or decode, forward, loss, backward and update of an epoch's images."""
    data_dir = Path(os.environ["ABLATE_DATA_DIR"])
    inputs, fields = Inputs("cpu", data_dir, lambda *progress: None), resolve(FIELDS, SET)
    dataset, trials = inputs.dataset(fields), [inputs.trial({}, fields, seed) for seed in range(AT_A_TIME)]
    folder = next(
        root / "train" for root in (data_dir / "imagenette2-160", data_dir) if (root / "train").is_dir()
    )
    _check(trials[0], dataset, folder)
    total, asked = len(dataset.train), pytestconfig.getoption("--images")
    # Whole batches, of images from every class.
    images = max(asked // textbook.BATCH, 1) * textbook.BATCH if 0 < asked < total else total
    places = range(0, total // images * images, total // images)
    with ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for _ in range(AT_A_TIME + 2)
        ]
        tasks = [(trial.model_dump_json(), dataset.folder, images) for trial in trials]
        ours = f"ablate, {AT_A_TIME} at a time, {trials[0].numerics.precision}"
        peers = {ours: _at_once(pools[:AT_A_TIME], images, train_ours, tasks)}
        loop = folder, places, dataset.mean, dataset.std
        for threads, pool in zip((1, 2), pools[AT_A_TIME:], strict=True):
            name = f"textbook, {threads} thread{'s'[: threads - 1]}"
            peers[name] = _at_once([pool], images, textbook.epoch, [(*loop, threads)])
        group = f"epoch, seed_cnn, {textbook.SIDE} px, batch {textbook.BATCH}, {images} of {total} images"
        compare(group, peers, [name for name in peers if name != ours], unit="image")


def _at_once(
    pools: list[ProcessPoolExecutor], images: int, work: Callable[..., int], arguments: list[tuple[Any, ...]]
) -> Peer:
    """A call in each process at the same time, to the end of them all; each trains on that many images."""

    def call() -> None:
        futures = [pool.submit(work, *of_it) for pool, of_it in zip(pools, arguments, strict=True)]
        assert [future.result() for future in futures] == [images] * len(pools)

    return Peer(call, units=len(pools) * images)


@functools.cache
def our_step(trial_json: str, data_folder: Path) -> Step:
    """What trains a trial in a worker; this process keeps it."""
    trial = Trial.model_validate_json(trial_json)
    return first_step(trial, data_folder, ready_device(trial.numerics, 0), "eager")


def train_ours(trial_json: str, data_folder: Path, images: int) -> int:
    """Train on an epoch's first images, and say how many there were."""
    step = our_step(trial_json, data_folder)
    parts = step.begin_epoch(0)[: -(-images // textbook.BATCH)]
    for index in parts:
        step(index)
    return sum(map(len, parts))


def _check(trial: Trial, dataset: Dataset, folder: Path) -> None:
    """Both see the same images and labels, and the same network has the same loss of them."""
    files = textbook.image_folder(folder, dataset.mean, dataset.std)
    names = {Path(name).parts[-2:]: place for place, name in enumerate(dataset.train.names)}
    chosen = range(0, len(files), len(files) // CHECKED_IMAGES)
    step = first_step(trial, dataset.folder, torch.device("cpu"), "eager")
    index = torch.tensor([names[Path(files.samples[place][0]).parts[-2:]] for place in chosen])
    pixels, labels = step.images.batch(index)
    theirs = torch.stack([files[place][0] for place in chosen])
    torch.testing.assert_close(pixels.contiguous(), theirs, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(labels, [files[place][1] for place in chosen])
    with torch.no_grad():
        expected = cross_entropy(step.model.train()(theirs), labels, label_smoothing=textbook.EPSILON)
    found, _ = step.compute(index)
    close = TOLERANCE[trial.numerics.precision]
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
