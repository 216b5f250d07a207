import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_data import make_request, packed, refused
from torchvision import datasets

from ablate.data import Dataset, cifar10
from ablate.data.cache import materialise
from ablate.data.cifar10 import ARCHIVE
from ablate.data.fetch import Archive
from ablate.data.source import Request


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with batches of ten images, the MD5 digests of whose files torchvision is told."""
    root = tmp_path / "own" / ARCHIVE.folder
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    digests = {}
    for name in ARCHIVE.contents:
        pixels = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {"data": pixels, "labels": rng.permutation(10).tolist()}
        content = pickle.dumps({"label_names": [*"abcdefghij"]} if name == "batches.meta" else batch)
        (root / name).write_bytes(content)
        digests[name] = hashlib.md5(content).hexdigest()
    for split in ("train_list", "test_list"):
        listed = [[name, digests[name]] for name, _ in getattr(datasets.CIFAR10, split)]
        monkeypatch.setattr(datasets.CIFAR10, split, listed)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": digests["batches.meta"]})
    return root


def opened(request: Request, archive: Archive = ARCHIVE) -> Dataset:
    return materialise(cifar10.locate("cifar10", request, archive), request)


def test_images_and_labels_are_torchvisions(small: Path, tmp_path: Path) -> None:
    dataset = opened(make_request(tmp_path, 20, data_dir=small))
    assert dataset.classes == tuple("abcdefghij")
    assert (dataset.train.names[7], dataset.valid.names[9]) == ("train/00007", "test/00009")
    for split, train in ((dataset.train, True), (dataset.valid, False)):
        reference = datasets.CIFAR10(small.parent, train=train)
        for image, label, (original, true) in zip(split.images, split.labels, reference, strict=True):
            direct = original.resize((20, 20), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image, np.asarray(direct))
            assert label == true
    renamed = small.rename(small.with_name("mine"))
    other = opened(make_request(tmp_path, 20, data_dir=renamed, cache="other"))
    assert other.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_is_never_unpickled(small: Path, tmp_path: Path, name: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (small / "canary",))

    (small / name).write_bytes(pickle.dumps(Payload()))
    assert "MD5 digest is not" in refused(opened, make_request(tmp_path, data_dir=small))
    assert not (small / "canary").exists()


def test_a_download_may_hold_nothing_else(server: Any, small: Path, tmp_path: Path) -> None:
    whole = opened(make_request(tmp_path), packed(small, ARCHIVE, server.serve))
    own = opened(make_request(tmp_path, data_dir=small.parent, cache="own"))
    assert whole.fingerprint == own.fingerprint
    (small / "setup.py").write_text("x")
    more = packed(small, ARCHIVE, server.serve)
    assert "'cifar-10-batches-py/setup.py'" in refused(opened, make_request(tmp_path, cache="other"), more)
