import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

import ablate
from ablate.data import Dataset, cifar10, open_dataset, prepare
from ablate.data.cache import materialise
from ablate.data.cifar10 import ARCHIVE
from ablate.data.download import RemoteFile
from ablate.data.fetch import Archive
from ablate.data.source import Request
from ablate.errors import DataError

MakeRequest = Callable[..., Request]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batches() -> dict[str, bytes]:
    """Return files of the official form, ten images a batch."""
    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": CLASSES})}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": rng.permutation(10).tolist()})
    return files


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a small stand-in, the MD5 digests of whose files torchvision is told."""
    root = tmp_path / "own" / ARCHIVE.folder
    root.mkdir(parents=True)
    files = batches()
    digests = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (root / name).write_bytes(content)
    train = [[name, digests[name]] for name in files if name.startswith("data")]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests["batches.meta"]})
    return root.parent


def packed(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(root, ARCHIVE.folder)
    return buffer.getvalue()


def served(server: Any, content: bytes) -> Archive:
    digest = hashlib.sha256(content).hexdigest()
    return replace(ARCHIVE, remote=RemoteFile(server.serve(content), len(content), digest))


def opened(request: Request, archive: Archive = ARCHIVE) -> Dataset:
    return materialise(cifar10.locate("cifar10", request, archive), request)


def test_images_and_labels_are_torchvisions(small: Path, make_request: MakeRequest) -> None:
    dataset = opened(make_request(image_size=32, data_dir=small))
    assert dataset.classes == tuple(CLASSES)
    assert dataset.train.names[7] == "train/00007"
    assert dataset.valid.names[9] == "test/00009"
    for split, train in ((dataset.train, True), (dataset.valid, False)):
        reference = CIFAR10(small, train=train)
        assert len(split) == len(reference)
        for row, (image, label) in enumerate(reference):
            np.testing.assert_array_equal(split.images[row], np.asarray(image))
            assert split.labels[row] == label
    assert (dataset.noisy_train_labels(0.5) != dataset.train.labels).sum() == 25


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
def test_images_are_resized_like_any(small: Path, make_request: MakeRequest, resize: str) -> None:
    dataset = opened(make_request(image_size=20, data_dir=small, resize=resize))
    for row, (image, _) in enumerate(CIFAR10(small)):
        direct = image.resize((20, 20), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(dataset.train.images[row], np.asarray(direct))


def test_own_copy_is_found_from_either_folder_and_by_any_name(small: Path, make_request: MakeRequest) -> None:
    outer = opened(make_request(data_dir=small))
    inner = opened(make_request(data_dir=small / ARCHIVE.folder, cache="other"))
    (small / ARCHIVE.folder).rename(small / "mine")
    renamed = opened(make_request(data_dir=small / "mine", cache="third"))
    assert outer.fingerprint == inner.fingerprint == renamed.fingerprint


def test_no_copy_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-py") as caught:
        prepare("cifar10", image_size=8, cache_dir=tmp_path, data_dir=tmp_path)
    assert "--data-dir" in str(caught.value)
    assert ARCHIVE.remote.url in str(caught.value)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_is_never_unpickled(small: Path, make_request: MakeRequest, name: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (small / "canary",))

    (small / ARCHIVE.folder / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="MD5 digest is not") as caught:
        opened(make_request(data_dir=small))
    assert "Restore these files" in str(caught.value)
    assert not (small / "canary").exists()


def test_download_unpack_decode(server: Any, small: Path, make_request: MakeRequest, progress: Any) -> None:
    archive = served(server, packed(small / ARCHIVE.folder))
    request = make_request()
    dataset = opened(request, archive)
    assert dataset.fingerprint == opened(make_request(data_dir=small, cache="other")).fingerprint
    for word in ("downloading", "unpacking", "decoding"):
        assert word in " ".join(progress.stages())
    server.answers.clear()  # from here on a download would fail
    assert opened(request, archive).fingerprint == dataset.fingerprint


def test_a_download_that_fails_names_the_ways_out(
    server: Any, small: Path, make_request: MakeRequest
) -> None:
    archive = served(server, packed(small / ARCHIVE.folder))
    server.answers.clear()
    with pytest.raises(DataError, match="404") as caught:
        opened(make_request(), archive)
    for word in (archive.remote.url, "--data-dir", "--profile quick"):
        assert word in str(caught.value)


def test_an_archive_with_anything_else_is_refused(
    server: Any, small: Path, make_request: MakeRequest
) -> None:
    (small / ARCHIVE.folder / "setup.py").write_text("x")
    archive = served(server, packed(small / ARCHIVE.folder))
    request = make_request()
    with pytest.raises(DataError, match=r"'cifar-10-batches-py/setup\.py'"):
        opened(request, archive)
    assert not [path for path in (request.cache_dir / "sources").iterdir() if path.is_dir()]


def test_the_official_archive_is_torchvisions() -> None:
    assert ARCHIVE.remote.url == CIFAR10.url
    assert ARCHIVE.folder == CIFAR10.base_folder
    files = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"]]]
    assert sorted(ARCHIVE.contents) == sorted(file[0] for file in files)
    for name in ARCHIVE.contents:
        assert ARCHIVE.allowed.files.fullmatch(f"{ARCHIVE.folder}/{name}")


FRESH = """
import sys
from pathlib import Path
from ablate.data import cifar10
from ablate.data.cache import materialise
from ablate.data.source import Request
request = Request(8, Path(sys.argv[1]), Path(sys.argv[2]), lambda *_: None)
materialise(cifar10.locate("cifar10", request), request)
print("torchvision" in sys.modules)
"""


def test_torchvision_is_not_needed_once_decoded(
    small: Path, make_request: MakeRequest, tmp_path: Path
) -> None:
    folder = opened(make_request(data_dir=small)).folder
    command = [sys.executable, "-c", FRESH, str(tmp_path / "cache"), str(small)]
    result = subprocess.run(
        command, cwd=Path(ablate.__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False"]
    assert len(open_dataset(folder).train) == 50
