import contextlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablate.data import Progress
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
        image_size: int = 8,
        data_dir: Path | None = None,
        cache: str = "cache",
        told: Progress | None = None,
        resize: str = "squash",
    ) -> Request:
        return Request(image_size, tmp_path / cache, data_dir, told or progress, resize)

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
    """Write train and val folders of two classes, five PNG files a split."""

    def make(name: str = "photos", prefix: str = "", classes: tuple[str, str] = ("cat", "dog")) -> Path:
        root = tmp_path / name
        for number, (split, label, count) in enumerate(
            [("train", 0, 3), ("train", 1, 2), ("val", 0, 2), ("val", 1, 3)]
        ):
            for index in range(count):
                path = root / split / classes[label] / f"{prefix}{index}.png"
                write_image(path, seed=10 * number + index)
        return root

    return make


@pytest.fixture(scope="session")
def imagenette_dir() -> Path:
    folder = os.environ.get("ABLATE_DATA_DIR")
    if not folder:
        pytest.skip("ABLATE_DATA_DIR does not name a folder with imagenette2-160")
    return Path(folder)


class Server:
    """A real HTTP server on 127.0.0.1 that can misbehave."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.released = threading.Event()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def serve(
        self,
        body: bytes,
        *,
        claimed: int | None = None,
        endless: bool = False,
        silent: bool = False,
        bare: bool = False,
    ) -> str:
        """Return the URL of `body`.

        The server may claim another length, send without end, keep silent, or send no HTTP header.
        """
        path = f"/{len(self.answers)}.tgz"
        self.answers[path] = {
            "body": body,
            "claimed": claimed,
            "endless": endless,
            "silent": silent,
            "bare": bare,
        }
        return self.url + path

    def stop(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = server.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                    return
                if answer["silent"]:
                    server.released.wait(5)
                    return
                if answer["bare"]:
                    self.wfile.write(answer["body"])
                    return
                self.send_response(200)
                if not answer["endless"]:
                    self.send_header("Content-Length", str(answer["claimed"] or len(answer["body"])))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(answer["body"])
                    while answer["endless"]:
                        self.wfile.write(bytes(1 << 16))

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.stop()
