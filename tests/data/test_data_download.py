import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from ablate.data.download import RemoteFile, download
from ablate.errors import DataError

CONTENT = bytes(range(256)) * 9000  # 2.3 MB: three blocks


def remote(url: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(url, len(content), hashlib.sha256(content).hexdigest())


def test_file_arrives_with_progress(server: Any, tmp_path: Path, progress: Any) -> None:
    url = server.serve(CONTENT)
    download(remote(url), tmp_path / "file", progress)
    assert (tmp_path / "file").read_bytes() == CONTENT
    received = [done for stage, done, total in progress.calls if url in stage and total == len(CONTENT)]
    assert received == sorted(received)
    assert received[-1] == len(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_published_md5_is_enough(server: Any, tmp_path: Path, progress: Any) -> None:
    url = server.serve(CONTENT)
    right = RemoteFile(url, len(CONTENT), hashlib.md5(CONTENT).hexdigest(), "md5")
    download(right, tmp_path / "file", progress)
    assert (tmp_path / "file").read_bytes() == CONTENT
    (tmp_path / "file").unlink()
    refused(RemoteFile(url, len(CONTENT), "0" * 32, "md5"), tmp_path, f"received .* MD5 {right.digest}")


def refused(file: RemoteFile, folder: Path, cause: str, **options: Any) -> None:
    """Expect an error with its cause and both ways out, and nothing left behind."""
    with pytest.raises(DataError, match=cause) as caught:
        download(file, folder / "file", lambda *_: None, **options)
    message = str(caught.value)
    assert file.url in message
    assert "--data-dir" in message
    assert "--profile quick" in message
    assert list(folder.iterdir()) == []


def test_other_bytes_of_the_same_size(server: Any, tmp_path: Path) -> None:
    other = CONTENT[:-1] + b"x"
    refused(remote(server.serve(other)), tmp_path, hashlib.sha256(other).hexdigest())


def test_connection_that_ends_early(server: Any, tmp_path: Path) -> None:
    url = server.serve(CONTENT[:-1000], claimed=len(CONTENT))
    refused(remote(url), tmp_path, f"received {len(CONTENT) - 1000} bytes")


def test_right_bytes_and_more(server: Any, tmp_path: Path) -> None:
    refused(remote(server.serve(CONTENT + b"x")), tmp_path, f"received {len(CONTENT) + 1} bytes")


def test_endless_stream_is_cut_off(server: Any, tmp_path: Path) -> None:
    url = server.serve(b"", endless=True)
    refused(remote(url, b"x" * 5000), tmp_path, "received")


def test_missing_on_the_server(server: Any, tmp_path: Path) -> None:
    refused(remote(f"{server.url}/absent"), tmp_path, "404")


def test_silent_server(server: Any, tmp_path: Path) -> None:
    refused(remote(server.serve(CONTENT, silent=True)), tmp_path, "timed out", timeout=0.2)


def test_unreachable_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody listens once it is closed
    refused(remote(f"http://127.0.0.1:{port}/file"), tmp_path, "refused")


def test_server_that_speaks_no_http(server: Any, tmp_path: Path) -> None:
    refused(remote(server.serve(b"SSH-2.0-OpenSSH\r\n\r\n", bare=True)), tmp_path, "SSH")


def test_not_a_url(tmp_path: Path) -> None:
    refused(RemoteFile("nowhere", 1, "0"), tmp_path, "unknown url type")


def test_no_room(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        download(remote(server.serve(CONTENT)), tmp_path / "absent" / "file", lambda *_: None)
