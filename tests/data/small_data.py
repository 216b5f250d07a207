"""What the tests of data share: small trees of images, requests, other processes."""

import hashlib
import io
import os
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
from ablate.data import Dataset, prepare
from ablate.data.fetch import Archive
from ablate.data.source import Request
from ablate.errors import DataError


class Recorder:
    """A progress callback that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, *call: Any) -> None:
        self.calls.append(call)

    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _, _ in self.calls))


def make_request(here: Path, image_size: int = 8, *, cache: str = "cache", **options: Any) -> Request:
    return Request(image_size, here / cache, **{"data_dir": None, "progress": Recorder(), **options})


def write_image(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Path:
    """Write an image of random pixels that depend on the seed alone."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def image_tree(
    here: Path,
    name: str = "photos",
    prefix: str = "",
    classes: tuple[str, str] = ("cat", "dog"),
    counts: tuple[int, int, int, int] = (3, 2, 2, 3),
) -> Path:
    """Write train and val folders of two classes, five PNG files a split, or as many as are asked for."""
    folders = [f"{split}/{label}" for split in ("train", "val") for label in classes]
    for number, (folder, count) in enumerate(zip(folders, counts, strict=True)):
        for index in range(count):
            write_image(here / name / folder / f"{prefix}{index}.png", seed=100 * number + index)
    return here / name


def prepared(root: object, cache: Path, part: float = 0, *, image_size: int = 8, **options: Any) -> Dataset:
    return prepare(f"folder:{root}", image_size=image_size, cache_dir=cache, tuning_part=part, **options)


def refused(act: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The message with which a call refuses data."""
    with pytest.raises(DataError) as caught:
        act(*arguments, **options)
    return str(caught.value)


def squashed(path: Path, side: int = 8) -> np.ndarray:
    """An image's pixels, as Pillow alone makes them."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def paint(root: Path, level: int) -> None:
    """Replace each image by a plain red one, a level brighter than the last, of the same size and time."""
    for number, path in enumerate(sorted(root.rglob("?.*"))):
        path.unlink()
        Image.new("RGB", (8, 8), (level + number, 0, 0)).save(path.with_suffix(".bmp"))
        os.utime(path.with_suffix(".bmp"), ns=(0, 0))


def packed(folder: Path, archive: Archive, serve: Callable[[bytes], str]) -> Archive:
    """The archive as if it had been published with what a folder holds, at the URL that `serve` gives."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, archive.folder)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return replace(archive, url=serve(content), size=len(content), digest=digest)


def decoded(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "decoded").iterdir() if path.is_dir())


def start_python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a fresh interpreter that can import the package."""
    environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
