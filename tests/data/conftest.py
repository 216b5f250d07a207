import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ablate
from ablate.data.source import Request


class Recorder:
    """A progress callback that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls.append((stage, done, total))

    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for stage, _, _ in self.calls))


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


@pytest.fixture
def make_request(tmp_path: Path, progress: Recorder) -> Callable[..., Request]:
    def make(
        image_size: int = 8, data_dir: Path | None = None, cache: str = "cache", resize: str = "squash"
    ) -> Request:
        return Request(image_size, tmp_path / cache, data_dir, progress, resize)

    return make


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write an image of random pixels that depend on the seed alone."""

    def write(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def image_tree(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write train and val folders of two classes, five PNG files a split, or as many as are asked for."""

    def make(
        name: str = "photos",
        prefix: str = "",
        classes: tuple[str, str] = ("cat", "dog"),
        counts: tuple[int, int, int, int] = (3, 2, 2, 3),
    ) -> Path:
        root = tmp_path / name
        for number, (split, label) in enumerate([("train", 0), ("train", 1), ("val", 0), ("val", 1)]):
            for index in range(counts[number]):
                path = root / split / classes[label] / f"{prefix}{index}.png"
                write_image(path, seed=100 * number + index)
        return root

    return make


@pytest.fixture
def start_python() -> "Callable[..., subprocess.Popen[str]]":
    """Start a fresh interpreter that can import the package."""

    def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parents[1])}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture(scope="session")
def imagenette_dir() -> Path:
    folder = os.environ.get("ABLATE_DATA_DIR")
    if not folder:
        pytest.skip("ABLATE_DATA_DIR does not name a folder with imagenette2-160")
    return Path(folder)


class Server:
    """A real HTTP server on 127.0.0.1 that sends the bytes it is told to, however wrong."""

    def __init__(self) -> None:
        self.answers: dict[str, Iterable[bytes]] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def serve(self, body: bytes, *, claimed: int | None = None, answer: Iterable[bytes] = ()) -> str:
        """Return the URL of `body`, whose length may be claimed to be another, or of a whole answer."""
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {claimed or len(body)}\r\n\r\n".encode()
        path = f"/{len(self.answers)}.tgz"
        self.answers[path] = answer or [head, body]
        return self.url + path

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # shut down
            with connection, contextlib.suppress(OSError):
                path = connection.recv(1 << 16).split()[1].decode()
                for part in self.answers.get(path, [b"HTTP/1.0 404 Not Found\r\n\r\n"]):
                    connection.sendall(part)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    with running.listener as listener:
        listener.shutdown(socket.SHUT_RDWR)
