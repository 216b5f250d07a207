"""Downloads that go wrong, hostile archives, and what is left of them: nothing."""

import gzip
import hashlib
import io
import itertools
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_data import Recorder, make_request, refused, start_python

from ablate.data import fetch
from ablate.data.fetch import Archive, download, extract, unpacked
from ablate.data.source import Request

CONTENT = bytes(range(256)) * 9000  # 2.3 MB: three blocks
GOOD = "set/train/n00000001/a.JPEG"


def archive_of(content: bytes, url: str = "http://127.0.0.1:9/none.tgz") -> Archive:
    digest = hashlib.sha256(content).hexdigest()
    return Archive(url, len(content), digest, "set", ("train", "val"))


@pytest.mark.parametrize(("algorithm", "kind"), [("sha256", "SHA-256"), ("md5", "MD5")])
def test_a_file_arrives_with_its_digest(server: Any, tmp_path: Path, algorithm: str, kind: str) -> None:
    digest, progress = hashlib.new(algorithm, CONTENT).hexdigest(), Recorder()
    archive = replace(archive_of(CONTENT, server.serve(CONTENT)), digest=digest)
    request = make_request(tmp_path, progress=progress)
    download(archive, tmp_path / "file", request)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert {total for stage, _, total in progress.calls if archive.url in stage} == {len(CONTENT)}
    received = [done for _, done, _ in progress.calls]
    assert received == sorted(received)
    assert received[-1] == len(CONTENT)
    none = "0" * len(digest)
    message = refused(download, replace(archive, digest=none), tmp_path / "file", request)
    assert f"with {kind} {none}, received {len(CONTENT)} bytes with {kind} {digest}" in message


def say_nothing() -> Iterator[bytes]:
    time.sleep(1)
    yield b""


ENDLESS = itertools.chain([b"HTTP/1.0 200 OK\r\n\r\n"], itertools.repeat(bytes(1 << 16)))
BAD_DOWNLOADS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "other bytes": ({"body": CONTENT[:-1] + b"x"}, f"received {len(CONTENT)} bytes"),
    "ends early": ({"body": CONTENT[:-9], "claimed": len(CONTENT)}, f"received {len(CONTENT) - 9} bytes"),
    "right bytes and more": ({"body": CONTENT + b"x"}, f"received {len(CONTENT) + 1} bytes"),
    "endless": ({"body": b"", "answer": ENDLESS}, "deleted unopened"),
    "silent": ({"body": b"", "answer": say_nothing()}, "timed out"),
    "no HTTP": ({"body": b"", "answer": [b"SSH-2.0-OpenSSH\r\n\r\n"]}, "SSH"),
    "no server": ("http://127.0.0.1:9/none.tgz", "refused"),
    "no file": ({"body": b"", "answer": [b"HTTP/1.0 404 Not Found\r\n\r\n"]}, "404"),
}


@pytest.mark.parametrize(("answer", "cause"), BAD_DOWNLOADS.values(), ids=BAD_DOWNLOADS.keys())
def test_a_bad_download_is_refused(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | str, cause: str
) -> None:
    if cause == "timed out":
        monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    archive = archive_of(CONTENT, answer if isinstance(answer, str) else server.serve(**answer))
    message = refused(download, archive, tmp_path / "file", make_request(tmp_path))
    for word in (cause, archive.url, "--data-dir", "--profile quick"):
        assert word in message
    assert not (tmp_path / "file").exists() or not (tmp_path / "file").stat().st_size


def member(name: str, content: bytes = b"pixels", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return plain.getvalue()


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[bytes], Path]:
    """Unpack a gzipped archive in a folder that has a canary beside it, and see that the canary lives."""

    def run(packed: bytes) -> Path:
        (tmp_path / "canary").write_text("alive")
        (tmp_path / "set.tgz").write_bytes(packed)
        target = tmp_path / "target"
        target.mkdir()
        try:
            extract(tmp_path / "set.tgz", target, make_request(tmp_path))
        finally:
            assert (tmp_path / "canary").read_text() == "alive"
            assert {path.name for path in tmp_path.iterdir()} == {"canary", "set.tgz", "target"}
        return target

    return run


def files(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_files_are_written_as_they_are(unpack: Callable[..., Path]) -> None:
    image = "set/val/n00000002/ILSVRC2012_val_00000293.JPEG"
    expected = {GOOD: b"one", image: b"two" * 500, "set/labels.csv": b"path,label\n"}
    folders = [member(name, b"", type=tarfile.DIRTYPE) for name in ("./", "set", "set/train")]
    droppings = [member(name) for name in ("./set/.DS_Store", "./._set", "./set/train/n00000001/._a.JPEG")]
    images = [member(f"./{name}", content, mode=0o6777, uid=12345) for name, content in expected.items()]
    target = unpack(gzip.compress(tar(*folders, *droppings, *images)))
    assert files(target) == expected
    assert {path.name for path in target.iterdir()} == {"set"}
    status = (target / GOOD).stat()  # modes and owners of the archive are not taken over
    assert (status.st_mode & 0o7022, status.st_uid) == (0, os.getuid())


HOSTILE = {
    "parent": tar(member("../canary")),
    "absolute": tar(member("/../../canary")),
    "symlink": tar(member(GOOD, b"", type=tarfile.SYMTYPE, linkname="../../../../canary"), member(GOOD)),
    "hard link": tar(member(GOOD, b"", type=tarfile.LNKTYPE, linkname="../canary"), member(GOOD)),
    "device": tar(member(GOOD, b"", type=tarfile.CHRTYPE)),
    "not tar": b"not tar" * 200,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused(unpack: Callable[..., Path], content: bytes) -> None:
    assert "Nothing of it was kept" in refused(unpack, gzip.compress(content, compresslevel=1))


PACKED = gzip.compress(tar(member(GOOD), member("set/val/n00000001/b.JPEG")))


def kept(request: Request) -> list[str]:
    return [path.name for path in (request.cache_dir / "sources").iterdir() if path.suffix != ".lock"]


def test_a_download_is_unpacked_once_and_nothing_kept_of_a_refused_one(server: Any, tmp_path: Path) -> None:
    hostile = gzip.compress(tar(member(GOOD, b"", type=tarfile.SYMTYPE, linkname="/canary")))
    progress = Recorder()
    archive, request = archive_of(PACKED, server.serve(PACKED)), make_request(tmp_path, progress=progress)
    for bad, cause in (
        (replace(archive, digest="0" * 64), "deleted unopened"),
        (archive_of(hostile, server.serve(hostile)), "was refused"),
    ):
        assert "unpacking" not in " ".join(progress.stages())
        assert cause in refused(unpacked, bad, request)
        assert kept(request) == []
    root, remedy = unpacked(archive, request)
    assert root == request.cache_dir / "sources" / "set"
    assert sorted(files(root)) == ["train/n00000001/a.JPEG", "val/n00000001/b.JPEG"]
    assert f"Delete {root} and run again" in remedy
    server.answers.clear()  # from here on a download would fail
    assert unpacked(archive, request) == (root, remedy)
    assert kept(request) == ["set"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ablate.data.fetch import Archive, unpacked
from ablate.data.source import Request
def progress(stage, done, total):
    if sys.argv[3] in stage:
        os.kill(os.getpid(), signal.SIGKILL)
unpacked(eval(sys.argv[1]), Request(8, Path(sys.argv[2]), None, progress))
"""


@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_a_killed_fetch_is_never_taken_for_whole(server: Any, tmp_path: Path, stage: str) -> None:
    archive, request = archive_of(PACKED, server.serve(PACKED)), make_request(tmp_path)
    process = start_python(KILLED, archive, request.cache_dir, stage)
    process.communicate()
    assert process.returncode == -9
    assert [Path(name).suffix for name in kept(request)] == [".tmp"]
    root, _ = unpacked(archive, request)
    assert len(files(root)) == 2
    assert kept(request) == ["set"]
