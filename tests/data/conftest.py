import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator

import pytest


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
