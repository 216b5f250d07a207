import hashlib
import io
import os
import pickle
import shutil
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

import ablate
from ablate.data import Dataset, open_dataset, prepare
from ablate.data.cache import materialise
from ablate.data.dataset import array_digest
from ablate.data.decode import decode_image
from ablate.data.download import RemoteFile
from ablate.data.imagenet_subset import ImageClass, Subset, locate_subset
from ablate.data.imagenette import SUBSETS
from ablate.data.noise_list import COLUMNS, NoiseList
from ablate.data.source import Request
from ablate.errors import DataError

MakeRequest = Callable[..., Request]
OFFICIAL = SUBSETS["imagenette-160"]
CLASSES = {"n00000001": ImageClass("tench", 3, 2), "n00000002": ImageClass("church", 2, 3)}


def image_names() -> list[str]:
    return [
        f"{split}/{wnid}/{'ILSVRC2012_val_0' if split == 'val' else wnid + '_'}{index}.JPEG"
        for wnid, image_class in CLASSES.items()
        for split in ("train", "val")
        for index in range(getattr(image_class, split))
    ]


@pytest.fixture
def copy_dir(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Return a folder that holds a complete small copy, as if unpacked by hand."""
    root = tmp_path / "own" / OFFICIAL.folder
    for seed, name in enumerate(image_names()):
        write_image(root / name, seed=seed)
    (root / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
    return root.parent


@pytest.fixture
def archive(copy_dir: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(copy_dir / OFFICIAL.folder, OFFICIAL.folder)
    return packed.getvalue()


def spec_of(archive: bytes = b"", url: str = "http://127.0.0.1:9/none.tgz") -> Subset:
    return Subset(
        title="Imagenette",
        remote=RemoteFile(url, len(archive), hashlib.sha256(archive).hexdigest()),
        folder=OFFICIAL.folder,
        shorter_side=16,
        classes=CLASSES,
        names_sha256=hashlib.sha256("\n".join(sorted(image_names())).encode()).hexdigest(),
        noise=NoiseList("noisy_imagenette.csv", "0" * 64, "https://example.org"),
        normalisation=OFFICIAL.normalisation,
    )


def open_copy(request: Request, spec: Subset | None = None) -> Dataset:
    return materialise(locate_subset("imagenette-160", request, spec or spec_of()), request)


# ---- one's own copy


def test_own_copy_is_found_from_either_folder(copy_dir: Path, make_request: MakeRequest) -> None:
    outer = open_copy(make_request(data_dir=copy_dir))
    inner = open_copy(make_request(data_dir=copy_dir / OFFICIAL.folder, cache="other"))
    assert outer.fingerprint == inner.fingerprint
    assert outer.classes == ("tench", "church")
    assert (outer.mean, outer.std) == ((0.47, 0.48, 0.45), (0.29, 0.28, 0.30))
    assert outer.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert outer.valid.labels.tolist() == [0, 0, 1, 1, 1]
    assert sorted(outer.train.names + outer.valid.names) == sorted(image_names())
    for split in (outer.train, outer.valid):
        for name, pixels in zip(split.names, split.images, strict=True):
            with Image.open(copy_dir / OFFICIAL.folder / name) as image:
                np.testing.assert_array_equal(pixels, image.resize((8, 8), Image.Resampling.BILINEAR))


def test_no_copy_there(tmp_path: Path, make_request: MakeRequest) -> None:
    with pytest.raises(DataError, match="--data-dir"):
        open_copy(make_request(data_dir=tmp_path))


def test_greyscale_and_cmyk_files_are_accepted(
    copy_dir: Path, make_request: MakeRequest, write_image: Callable[..., Path]
) -> None:
    names = sorted(name for name in image_names() if name.startswith("train"))
    write_image(copy_dir / OFFICIAL.folder / names[0], mode="L")
    write_image(copy_dir / OFFICIAL.folder / names[1], mode="CMYK")
    images = open_copy(make_request(data_dir=copy_dir)).train.images
    assert (images[0] == images[0][..., :1]).all()
    assert images[1].std(axis=(0, 1)).min() > 0


def test_what_desktops_drop_is_passed_over(copy_dir: Path, make_request: MakeRequest) -> None:
    before = open_copy(make_request(data_dir=copy_dir)).fingerprint
    for name in (".DS_Store", "train/.DS_Store", "val/n00000001/._a.JPEG", "val/Thumbs.db"):
        (copy_dir / OFFICIAL.folder / name).write_bytes(b"x")
    (copy_dir / OFFICIAL.folder / "README").write_text("beside the splits")
    assert open_copy(make_request(data_dir=copy_dir)).fingerprint == before


@pytest.mark.parametrize("shorter_side", [160, 320, None])
def test_a_copy_of_another_size_is_told_from_the_right_one(
    copy_dir: Path, make_request: MakeRequest, write_image: Callable[..., Path], shorter_side: int | None
) -> None:
    def give(size: tuple[int, int]) -> Dataset:
        for seed, name in enumerate(image_names()):
            write_image(copy_dir / OFFICIAL.folder / name, seed=seed, size=size)
        return open_copy(make_request(data_dir=copy_dir), replace(spec_of(), shorter_side=shorter_side))

    for side in (160, 320, 70):
        right = side == (shorter_side or 70)
        for size in ((side, side + 20), (side + 20, side)):
            if right:
                assert len(give(size).train) == 5
            else:
                with pytest.raises(DataError, match="archive of another size"):
                    give(size)


def test_one_image_of_an_odd_size_is_no_other_archive(
    copy_dir: Path, make_request: MakeRequest, write_image: Callable[..., Path]
) -> None:
    names = image_names()
    for name in names:
        write_image(copy_dir / OFFICIAL.folder / name, size=(20, 16 if name != names[1] else 9))
    assert len(open_copy(make_request(data_dir=copy_dir)).train) == 5


def remove(root: Path) -> None:
    (root / "train/n00000001/n00000001_0.JPEG").unlink()


def remove_class(root: Path) -> None:
    shutil.rmtree(root / "val/n00000002")


def rename(root: Path) -> None:
    (root / "train/n00000001/n00000001_0.JPEG").rename(root / "train/n00000001/other.JPEG")


def move_between_splits(root: Path) -> None:
    for name, other in (("train/n00000001/n00000001_0.JPEG", "val/n00000001/ILSVRC2012_val_00.JPEG"),):
        (root / name).rename(root / "val/n00000001/moved.JPEG")
        (root / other).rename(root / "train/n00000001/moved.JPEG")


def cut(root: Path) -> None:
    path = root / "train/n00000001/n00000001_0.JPEG"
    path.write_bytes(path.read_bytes()[:-30])


def write(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def act(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)

    return act


def pipe(root: Path) -> None:
    os.mkfifo(root / "train/n00000001/pipe.JPEG")


def dangling(root: Path) -> None:
    (root / "train/n00000001/link.JPEG").symlink_to("nowhere")


DEFECTS = {
    "missing file": (remove, "'train/n00000001': expected 3 images, found 2"),
    "missing class": (remove_class, "'val/n00000002': expected 3 images, found 0"),
    "extra image": (write("train/n00000001/a.JPEG"), "'train/n00000001': expected 3 images, found 4"),
    "other suffix": (
        write("train/n00000001/a.png"),
        "'train/n00000001/a.png': not an image file by its name",
    ),
    "lower case suffix": (write("train/n00000001/a.jpeg"), "a.jpeg': not an image"),
    "unknown class": (write("train/n99999999/a.JPEG"), "'train/n99999999': not a class of Imagenette"),
    "stray file": (write("val/notes.txt"), "'val/notes.txt': a file beside the class folders"),
    "hidden file": (write("val/n00000001/.hidden"), ".hidden': not an image file"),
    "nested folder": (write("val/n00000001/more/a.JPEG"), None),
    "renamed": (rename, "not named as in the official archive"),
    "splits mixed": (move_between_splits, "not named as in the official archive"),
    "zero bytes": (write("val/n00000001/ILSVRC2012_val_00.JPEG", b""), "empty \\(0 bytes\\)"),
    "corrupt": (write("val/n00000001/ILSVRC2012_val_00.JPEG", b"\xff\xd8 oops"), "not an image"),
    "cut short": (cut, "truncated"),
    "pipe": (pipe, "'train/n00000001/pipe.JPEG': not a regular file"),
    "dangling link": (dangling, "'train/n00000001/link.JPEG': not a regular file"),
}


@pytest.mark.parametrize(("defect", "message"), DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_stops_and_is_named(
    copy_dir: Path, make_request: MakeRequest, defect: Callable[[Path], None], message: str | None
) -> None:
    if message is None:
        (copy_dir / OFFICIAL.folder / "val/n00000001/more").mkdir()
    defect(copy_dir / OFFICIAL.folder)
    with pytest.raises(DataError, match=message or "a folder inside a class folder") as caught:
        open_copy(make_request(data_dir=copy_dir))
    assert OFFICIAL.folder in str(caught.value)


def test_all_defects_are_in_one_list(copy_dir: Path, make_request: MakeRequest) -> None:
    root = copy_dir / OFFICIAL.folder
    remove(root)
    write("train/n00000002/b.png")(root)
    write("val/n00000001/ILSVRC2012_val_00.JPEG", b"")(root)
    write("val/n00000002/ILSVRC2012_val_01.JPEG", b"oops")(root)
    with pytest.raises(DataError) as caught:
        open_copy(make_request(data_dir=copy_dir))
    for expected in ("4 problems", "found 2", "b.png", "val_00.JPEG': empty", "val_01.JPEG': not an image"):
        assert expected in str(caught.value)


def test_a_long_list_is_cut_with_its_count(copy_dir: Path, make_request: MakeRequest) -> None:
    for index in range(33):
        write(f"val/notes{index:02d}.txt")(copy_dir / OFFICIAL.folder)
    with pytest.raises(DataError, match=r"and 13 more \(33 in all\)") as caught:
        open_copy(make_request(data_dir=copy_dir))
    assert str(caught.value).count(".txt") == 20


# ---- label noise


def write_noise(root: Path) -> NoiseList:
    """Write a list by which one image of five is mislabelled at 25 %, and two at 50 %."""
    wnids = list(CLASSES)
    names = sorted(name for name in image_names() if name.startswith("train"))
    true = [name.split("/")[1] for name in names]
    given = {column: list(true) for column in COLUMNS.values()}
    for column, rows in (("noisy_labels_25", [4]), ("noisy_labels_50", [0, 3])):
        for row in rows:
            given[column][row] = wnids[1 - wnids.index(true[row])]
    table = [
        ",".join([name, *(given[column][row] for column in given), "False"]) for row, name in enumerate(names)
    ]
    header = ",".join(["path", *given, "is_valid"])
    (root / "noisy_imagenette.csv").write_text("\n".join([header, *reversed(table)]) + "\n")
    ids = np.array([[wnids.index(wnid) for wnid in given[c]] for c in given if c != "noisy_labels_0"])
    return NoiseList("noisy_imagenette.csv", array_digest(ids), "https://example.org")


def test_listed_noise_is_in_the_decoded_folder(copy_dir: Path, make_request: MakeRequest) -> None:
    root = copy_dir / OFFICIAL.folder
    noise = write_noise(root)
    dataset = open_copy(make_request(data_dir=copy_dir), replace(spec_of(), noise=noise))
    shutil.rmtree(copy_dir)
    worker = open_dataset(dataset.folder)
    assert worker.train.labels.tolist() == [0, 0, 0, 1, 1]
    for fraction, labels in (
        (0, [0, 0, 0, 1, 1]),
        (0.01, [0, 0, 0, 1, 1]),
        (0.25, [0, 0, 0, 1, 0]),
        (0.5, [1, 0, 0, 0, 1]),
    ):
        assert worker.noisy_train_labels(fraction).tolist() == labels
    assert worker.valid.labels.tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(DataError, match=r"0, 0\.01, 0\.05, 0\.25 or 0\.5"):
        worker.noisy_train_labels(0.1)


def test_a_copy_without_a_list_prepares_and_takes_one_later(
    copy_dir: Path, make_request: MakeRequest
) -> None:
    root = copy_dir / OFFICIAL.folder
    noise = write_noise(root)
    content = (root / noise.file).read_bytes()
    (root / noise.file).unlink()
    subset = replace(spec_of(), noise=noise)
    without = open_copy(make_request(data_dir=copy_dir), subset)
    assert without.noisy_train_labels(0).tolist() == without.train.labels.tolist()
    with pytest.raises(DataError, match=f"Put noisy_imagenette.csv of https://example.org into {root}"):
        without.noisy_train_labels(0.5)
    (root / noise.file).write_bytes(content)
    dataset = open_copy(make_request(data_dir=copy_dir), subset)
    assert dataset.noisy_train_labels(0.5).tolist() == [1, 0, 0, 0, 1]
    assert dataset.fingerprint == without.fingerprint


# ---- download


def test_download_unpack_decode(
    server: Any,
    archive: bytes,
    copy_dir: Path,
    make_request: MakeRequest,
    progress: Any,
) -> None:
    spec = spec_of(archive, server.serve(archive))
    request = make_request()
    dataset = open_copy(request, spec)
    assert dataset.fingerprint == open_copy(make_request(data_dir=copy_dir, cache="other")).fingerprint
    stages = " ".join(progress.stages())
    for word in ("downloading", "unpacking", "decoding"):
        assert word in stages
    sources = request.cache_dir / "sources"
    assert [path.name for path in sources.iterdir() if path.is_dir()] == [OFFICIAL.folder]
    assert (sources / OFFICIAL.folder / "noisy_imagenette.csv").is_file()
    server.answers.clear()  # from here on a download would fail
    assert open_copy(request, spec).fingerprint == dataset.fingerprint
    assert open_copy(make_request(image_size=4), spec).train.images.shape[1] == 4


def nothing_kept(request: Request) -> bool:
    return not [
        path for path in request.cache_dir.rglob("*") if path.suffix != ".lock" and path.name != "sources"
    ]


OPENED: list[tuple[str, str]] = []
WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WATCHING[0] and ".tgz" in str(arguments[0]):
        OPENED.append((Path(os.fsdecode(arguments[0])).name, str(arguments[1])))


@pytest.fixture
def opened() -> Any:
    """Yield the archives opened during a test, each with its mode, as the interpreter's audit events tell."""
    if not OPENED and not WATCHING[0]:
        sys.addaudithook(_watch)  # cannot be taken back, so it is idle outside these tests
    OPENED.clear()
    WATCHING[0] = True
    yield OPENED
    WATCHING[0] = False


def test_wrong_digest_is_never_opened(
    server: Any,
    archive: bytes,
    make_request: MakeRequest,
    opened: list[tuple[str, str]],
) -> None:
    url = server.serve(archive)
    right = spec_of(archive, url)
    request = make_request()
    with pytest.raises(DataError, match="deleted unopened"):
        open_copy(request, replace(right, remote=replace(right.remote, digest="0" * 64)))
    assert [mode[0] for _, mode in opened] == ["w"]
    assert nothing_kept(request)
    opened.clear()
    open_copy(request, right)  # the probe does see an archive that is read
    assert [mode[0] for _, mode in opened] == ["w", "r"]


def test_truncated_download(server: Any, archive: bytes, make_request: MakeRequest) -> None:
    request = make_request()
    spec = spec_of(archive, server.serve(archive[:-100], claimed=len(archive)))
    with pytest.raises(DataError, match="--profile quick"):
        open_copy(request, spec)
    assert nothing_kept(request)


def test_hostile_archive_with_the_right_digest(
    server: Any,
    archive: bytes,
    make_request: MakeRequest,
    tmp_path: Path,
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"{OFFICIAL.folder}/train/n00000001/a.JPEG")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "canary")
        tar.addfile(info)
    (tmp_path / "canary").write_text("alive")
    request = make_request()
    with pytest.raises(DataError, match="does not belong"):
        open_copy(request, spec_of(packed.getvalue(), server.serve(packed.getvalue())))
    assert (tmp_path / "canary").read_text() == "alive"
    assert nothing_kept(request)


def test_archive_with_too_few_images_is_not_kept(
    server: Any,
    copy_dir: Path,
    make_request: MakeRequest,
) -> None:
    remove(copy_dir / OFFICIAL.folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(copy_dir / OFFICIAL.folder, OFFICIAL.folder)
    request = make_request()
    with pytest.raises(DataError, match="expected 3 images, found 2"):
        open_copy(request, spec_of(packed.getvalue(), server.serve(packed.getvalue())))
    assert nothing_kept(request)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from ablate.data.imagenet_subset import locate_subset
from ablate.data.source import Request
def progress(stage, done, total):
    if sys.argv[3] in stage:
        os.kill(os.getpid(), signal.SIGKILL)
spec = pickle.loads(Path(sys.argv[1]).read_bytes())
locate_subset("imagenette-160", Request(8, Path(sys.argv[2]), None, progress), spec)
"""


@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_a_killed_download_or_unpacking_is_never_taken_for_whole(
    server: Any,
    archive: bytes,
    make_request: MakeRequest,
    tmp_path: Path,
    stage: str,
) -> None:
    spec, request = spec_of(archive, server.serve(archive)), make_request()
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "spec"), str(request.cache_dir), stage]
    assert subprocess.run(command, env=environment).returncode == -9
    sources = request.cache_dir / "sources"
    assert [path.suffix for path in sources.iterdir() if path.is_dir()] == [".tmp"]
    assert len(open_copy(request, spec).train) == 5
    assert [path.name for path in sources.iterdir() if path.is_dir()] == [OFFICIAL.folder]


# ---- the real images


@pytest.fixture(scope="module")
def real(imagenette_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = tmp_path_factory.mktemp("imagenette")
    return prepare("imagenette-160", image_size=128, cache_dir=cache, data_dir=imagenette_dir)


def real_root(folder: Path) -> Path:
    return folder if (folder / "train").is_dir() else folder / OFFICIAL.folder


@pytest.mark.imagenette
def test_real_counts(real: Dataset) -> None:
    assert real.train.images.shape == (9469, 128, 128, 3)
    assert real.valid.images.shape == (3925, 128, 128, 3)
    assert len(real.classes) == 10
    assert real.mean == (0.47, 0.48, 0.45)


@pytest.mark.imagenette
@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("valid", "val")])
def test_real_labels_agree_with_torchvision(
    real: Dataset, imagenette_dir: Path, split: str, folder: str
) -> None:
    from torchvision.datasets import ImageFolder

    root = real_root(imagenette_dir)
    reference = ImageFolder(root / folder)
    ours = getattr(real, split)
    assert reference.classes == list(OFFICIAL.classes)
    assert ours.labels.tolist() == reference.targets
    assert [root / name for name in ours.names] == [Path(path) for path, _ in reference.samples]


@pytest.mark.imagenette
def test_real_class_names_agree_with_torchvision(real: Dataset) -> None:
    from torchvision.datasets import Imagenette

    assert real.classes == tuple(names[0] for names in Imagenette._WNID_TO_CLASS.values())
    assert tuple(OFFICIAL.classes) == tuple(Imagenette._WNID_TO_CLASS)
    assert OFFICIAL.remote.url == Imagenette._ARCHIVES["160px"][0]


@pytest.mark.imagenette
def test_real_greyscale_files_become_rgb(real: Dataset, imagenette_dir: Path) -> None:
    root = real_root(imagenette_dir)
    greyscale = 0
    for split in (real.train, real.valid):
        for name, pixels in zip(split.names, split.images, strict=True):
            with Image.open(root / name) as image:
                if image.mode == "L":
                    greyscale += 1
                    assert (pixels == pixels[..., :1]).all(), name
    assert greyscale == 242


@pytest.mark.imagenette
def test_real_pixels_are_those_of_pil(real: Dataset, imagenette_dir: Path) -> None:
    root = real_root(imagenette_dir)
    for split in (real.train, real.valid):
        for row in range(0, len(split), 97):
            with Image.open(root / split.names[row]) as image:
                direct = image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(split.images[row], np.asarray(direct))


@pytest.mark.imagenette
def test_real_names_agree_with_the_shipped_list(real: Dataset, imagenette_dir: Path) -> None:
    import csv

    with (real_root(imagenette_dir) / "noisy_imagenette.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = list(OFFICIAL.classes)
    for split, is_valid in ((real.train, "False"), (real.valid, "True")):
        listed = {row["path"]: row["noisy_labels_0"] for row in rows if row["is_valid"] == is_valid}
        ours = {name: classes[label] for name, label in zip(split.names, split.labels, strict=True)}
        assert ours == listed


@pytest.mark.imagenette
def test_real_noise_is_that_of_the_shipped_list(real: Dataset, imagenette_dir: Path) -> None:
    import pandas as pd

    table = pd.read_csv(real_root(imagenette_dir) / "noisy_imagenette.csv").set_index("path")
    classes = list(OFFICIAL.classes)
    for fraction, column, wrong in ((0.01, 1, 95), (0.05, 5, 474), (0.25, 25, 2368), (0.5, 50, 4735)):
        noisy = open_dataset(real.folder).noisy_train_labels(fraction)
        assert [classes[label] for label in noisy] == table.loc[
            list(real.train.names), f"noisy_labels_{column}"
        ].tolist()
        assert (noisy != real.train.labels).sum() == wrong


@pytest.mark.imagenette
def test_real_center_crops_are_torchvisions(imagenette_dir: Path) -> None:
    from torchvision import transforms

    root = real_root(imagenette_dir)
    transform = transforms.Compose([transforms.Resize(128), transforms.CenterCrop(128)])
    for path in sorted((root / "val" / "n03028079").iterdir())[::40]:
        with Image.open(path) as image:
            expected = np.asarray(transform(image.convert("RGB")))
        np.testing.assert_array_equal(decode_image(path, 128, "center_crop"), expected)
