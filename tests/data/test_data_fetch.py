"""Downloads that go wrong, hostile archives, and what is left of them: nothing."""

import gzip
import hashlib
import io
import os
import shutil
import socket
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.data import fetch
from ablate.data.fetch import download, extract, unpacked
from ablate.data.manifest import SUBSETS, Archive, Subset
from ablate.data.source import Request
from ablate.errors import DataError

MakeRequest = Callable[..., Request]
CONTENT = bytes(range(256)) * 9000  # 2.3 MB: three blocks
FILES = r"(train|val)/n\d{8}/[\w.-]+\.JPEG|labels\.csv"
GOOD = "set/train/n00000001/a.JPEG"


def archive_of(content: bytes, url: str = "http://127.0.0.1:9/none.tgz") -> Archive:
    digest = hashlib.sha256(content).hexdigest()
    return Archive(url, len(content), digest, "set", ("train", "val"), FILES)


# ---- download


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_file_arrives_with_progress(
    server: Any, tmp_path: Path, make_request: MakeRequest, progress: Any, algorithm: str
) -> None:
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    archive = replace(archive_of(CONTENT, server.serve(CONTENT)), digest=digest)
    download(archive, tmp_path / "file", make_request())
    assert (tmp_path / "file").read_bytes() == CONTENT
    received = [
        done for stage, done, total in progress.calls if archive.url in stage and total == len(CONTENT)
    ]
    assert received == sorted(received)
    assert received[-1] == len(CONTENT)


OTHER = CONTENT[:-1] + b"x"
BAD_DOWNLOADS: dict[str, tuple[dict[str, Any], str]] = {
    "other bytes": ({"body": OTHER}, f"received {len(CONTENT)} .* {hashlib.sha256(OTHER).hexdigest()}"),
    "ends early": (
        {"body": CONTENT[:-1000], "claimed": len(CONTENT)},
        f"received {len(CONTENT) - 1000} bytes",
    ),
    "right bytes and more": ({"body": CONTENT + b"x"}, f"received {len(CONTENT) + 1} bytes"),
    "endless": ({"body": b"", "manner": "endless"}, "received .* deleted unopened"),
    "silent": ({"body": CONTENT, "manner": "silent"}, "timed out"),
    "no HTTP": ({"body": b"SSH-2.0-OpenSSH\r\n\r\n", "manner": "bare"}, "SSH"),
}


def refused(archive: Archive, folder: Path, cause: str, make_request: MakeRequest) -> None:
    """Expect an error with its cause and both ways out, and no archive that could be opened."""
    with pytest.raises(DataError, match=cause) as caught:
        download(archive, folder / "file", make_request(), timeout=0.5)
    for word in (archive.url, "--data-dir", "--profile quick"):
        assert word in str(caught.value)
    assert not (folder / "file").exists() or not (folder / "file").stat().st_size


@pytest.mark.parametrize(("answer", "cause"), BAD_DOWNLOADS.values(), ids=BAD_DOWNLOADS.keys())
def test_a_bad_download_is_refused(
    server: Any, tmp_path: Path, make_request: MakeRequest, answer: dict[str, Any], cause: str
) -> None:
    refused(archive_of(CONTENT, server.serve(**answer)), tmp_path, cause, make_request)


def test_no_server_and_no_file(server: Any, tmp_path: Path, make_request: MakeRequest) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody listens once it is closed
    refused(archive_of(CONTENT, f"http://127.0.0.1:{port}/file"), tmp_path, "refused", make_request)
    refused(archive_of(CONTENT, f"{server.url}/absent"), tmp_path, "404", make_request)
    refused(archive_of(CONTENT, "nowhere"), tmp_path, "unknown url type", make_request)
    md5 = replace(archive_of(CONTENT, server.serve(CONTENT)), digest="0" * 32)
    refused(
        md5, tmp_path, f"MD5 {'0' * 32}, received .* MD5 {hashlib.md5(CONTENT).hexdigest()}", make_request
    )


# ---- unpack


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
def unpack(
    tmp_path: Path, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bytes], Path]:
    """Unpack a gzipped archive in a folder that has a canary beside it, and see that the canary lives."""
    for bound, value in (("MEMBERS", 50), ("MEMBER_BYTES", 10_000), ("OVERHEAD_BYTES", 100_000)):
        monkeypatch.setattr(fetch, f"MAX_{bound}", value)

    def run(packed: bytes) -> Path:
        (tmp_path / "canary").write_text("alive")
        (tmp_path / "set.tgz").write_bytes(packed)
        target = tmp_path / "target"
        target.mkdir()
        try:
            extract(tmp_path / "set.tgz", target, archive_of(packed), make_request())
        finally:
            assert (tmp_path / "canary").read_text() == "alive"
            assert {path.name for path in tmp_path.iterdir()} == {"canary", "set.tgz", "target"}
            for path in target.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or (path.is_file() and path.stat().st_nlink == 1)
        return target

    return run


def files(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    }


def test_expected_files_are_written_as_they_are(unpack: Callable[..., Path]) -> None:
    expected = {
        GOOD: b"one",
        "set/val/n00000002/ILSVRC2012_val_00000293.JPEG": b"two" * 500,
        "set/labels.csv": b"path,label\n",
    }
    folders = [member(name, b"", type=tarfile.DIRTYPE) for name in ("./", "set", "set/train", "elsewhere")]
    droppings = [member(name) for name in ("./set/.DS_Store", "./._set", "./set/train/n00000001/._a.JPEG")]
    images = [member(f"./{name}", content, mode=0o6777, uid=12345) for name, content in expected.items()]
    target = unpack(gzip.compress(tar(*folders, *droppings, *images)))
    assert files(target) == expected
    assert {path.name for path in target.iterdir()} == {"set"}
    status = (target / GOOD).stat()  # modes and owners of the archive are not taken over
    assert status.st_mode & 0o7111 == 0
    assert status.st_uid == os.getuid()


HOSTILE = {
    "parent": [member("../canary")],
    "parent within": [member("set/train/n00000001/../../../../canary")],
    "parent after dot": [member("./../canary")],
    "absolute": [member("/tmp/ablate-canary.JPEG")],
    "symlink": [member(GOOD, b"", type=tarfile.SYMTYPE, linkname="../../../../canary"), member(GOOD)],
    "symlinked folder": [member("set/train", b"", type=tarfile.SYMTYPE, linkname="../.."), member(GOOD)],
    "hard link": [member(GOOD, b"", type=tarfile.LNKTYPE, linkname="../canary"), member(GOOD)],
    "character device": [member(GOOD, b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member(GOOD, b"", type=tarfile.BLKTYPE)],
    "pipe": [member(GOOD, b"", type=tarfile.FIFOTYPE)],
    "contiguous": [member(GOOD, type=tarfile.CONTTYPE)],
    "sparse": [member(GOOD, pax_headers={"GNU.sparse.map": "0,6", "GNU.sparse.size": "1500"})],
    "dropping that is a link": [member("set/.DS_Store", b"", type=tarfile.SYMTYPE, linkname="../canary")],
    "other name": [member("set/run.py")],
    "other folder": [member("other/train/n00000001/a.JPEG")],
    "other suffix": [member("set/train/n00000001/a.JPEG.pth")],
    "newline": [member(f"{GOOD}\n")],
    "space": [member("set/train/n00000001/a b.JPEG")],
    "not ASCII digits": [member("set/train/n٠٠٠٠٠٠٠١/a.JPEG")],
    "deeper": [member("set/train/n00000001/b/a.JPEG")],
    "twice": [member(GOOD), member(GOOD, b"other")],
    "folder and file": [member("set/train/n00000001.JPEG")],
    "long name": [member("set/train/n00000001/" + "a/" * 2000 + "x.JPEG")],
    "too large": [member(GOOD, b"x" * 10_001)],
    "too many": [member(f"set/train/n00000001/{index}.JPEG", b"") for index in range(51)],
    "too many folders": [member("set", b"", type=tarfile.DIRTYPE)] * 51,
    "too many droppings": [member("set/.DS_Store", b"")] * 51,
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_members_are_refused(unpack: Callable[..., Path], members: Any) -> None:
    with pytest.raises(DataError, match=r"Nothing of it was kept"):
        unpack(gzip.compress(tar(*members)))
    assert not Path("/tmp/ablate-canary.JPEG").exists()


def test_sparse_member_of_the_old_form_is_refused(unpack: Callable[..., Path]) -> None:
    info, _ = member(GOOD, b"")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 1500  # the size that it claims to have when read
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    with pytest.raises(DataError, match="does not belong"):
        unpack(gzip.compress(bytes(header) + bytes(1024)))


def test_a_bomb_of_members_that_are_small_enough_stops_at_the_limit(unpack: Callable[..., Path]) -> None:
    members = [member(f"set/val/n00000001/{index}.JPEG", bytes(9000)) for index in range(20)]
    with pytest.raises(DataError, match="decompresses to more"):
        unpack(gzip.compress(tar(*members)))


@pytest.mark.parametrize("header", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_bomb_in_an_extended_header_stops_at_the_limit(unpack: Callable[..., Path], header: bytes) -> None:
    # tarfile reads such a header into memory whole: 1 GiB claimed, and 64 MiB of it there
    info, _ = member("long", b"", type=header)
    info.size = 1 << 30
    with pytest.raises(DataError, match="decompresses to more"):
        unpack(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20), compresslevel=1))


@pytest.mark.parametrize("size", [-512, -1, -(1 << 40)])
def test_negative_size_does_not_loop(unpack: Callable[..., Path], size: int) -> None:
    info, _ = member(GOOD)
    info.size = size  # CVE-2025-8194: tarfile seeks back to the same header for ever
    with pytest.raises(DataError):
        unpack(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))


def test_chained_extended_headers_do_not_exhaust_the_stack(
    unpack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MAX_OVERHEAD_BYTES", 10 << 20)
    info, _ = member("long", b"", type=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(DataError):
        unpack(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) * 5000))


@pytest.mark.parametrize("packed", [b"", b"not gzip", gzip.compress(b"not tar" * 200), gzip.compress(b"")])
def test_not_an_archive(unpack: Callable[..., Path], packed: bytes) -> None:
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(packed)


def test_cut_anywhere_is_an_error_or_a_shorter_list(unpack: Callable[..., Path], tmp_path: Path) -> None:
    whole = gzip.compress(tar(*(member(f"set/val/n00000001/{i}.JPEG", os.urandom(300)) for i in range(5))))
    complete = 0
    for length in range(0, len(whole), 97):
        try:
            complete += len(files(unpack(whole[:length]))) == 5
        except DataError:
            pass
        finally:
            shutil.rmtree(tmp_path / "target")
    # Only the padding and checksum after the last member can be lost without losing a file.
    assert complete <= 1


def test_existing_file_is_not_overwritten(tmp_path: Path, make_request: MakeRequest) -> None:
    packed = gzip.compress(tar(member(GOOD)))
    (tmp_path / "set.tgz").write_bytes(packed)
    (tmp_path / "target" / GOOD).parent.mkdir(parents=True)
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "target" / GOOD).symlink_to(tmp_path / "canary")
    with pytest.raises(DataError, match="File exists"):
        extract(tmp_path / "set.tgz", tmp_path / "target", archive_of(packed), make_request())
    assert (tmp_path / "canary").read_text() == "alive"


@pytest.mark.parametrize("subset", SUBSETS.values(), ids=SUBSETS.keys())
def test_bounds_leave_room_for_the_archive_and_for_little_more(subset: Subset) -> None:
    images = sum(train + val for _, train, val in subset.family.classes.values())
    # a tar member has a header of 512 bytes and is padded to as many; some have an extended header too
    assert subset.archive.size // 2 + fetch.MAX_OVERHEAD_BYTES > 2048 * images
    assert images + 40 < fetch.MAX_MEMBERS < 2 * images


# ---- both, into the cache

PACKED = gzip.compress(tar(member(GOOD), member("set/val/n00000001/b.JPEG")))


def kept(request: Request) -> list[str]:
    return [path.name for path in (request.cache_dir / "sources").iterdir() if path.suffix != ".lock"]


def test_a_download_is_unpacked_once(server: Any, make_request: MakeRequest, progress: Any) -> None:
    archive, request = archive_of(PACKED, server.serve(PACKED)), make_request()
    root, remedy = unpacked(archive, request)
    assert root == request.cache_dir / "sources" / "set"
    assert sorted(files(root)) == ["train/n00000001/a.JPEG", "val/n00000001/b.JPEG"]
    assert f"Delete {root} and run again" in remedy
    assert [stage.split()[0] for stage in progress.stages()] == ["downloading", "unpacking"]
    server.answers.clear()  # from here on a download would fail
    assert unpacked(archive, request) == (root, remedy)
    assert kept(request) == ["set"]


OPENED: list[str] = []
WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WATCHING[0] and ".tgz" in str(arguments[0]):
        OPENED.append(str(arguments[1])[0])


@pytest.fixture
def opened() -> Any:
    """Yield the modes in which archives are opened, as the interpreter's audit events tell."""
    if not OPENED:
        sys.addaudithook(_watch)  # cannot be taken back, so it is idle outside these tests
    OPENED.clear()
    WATCHING[0] = True
    yield OPENED
    WATCHING[0] = False


def test_wrong_digest_is_never_opened(server: Any, make_request: MakeRequest, opened: list[str]) -> None:
    right, request = archive_of(PACKED, server.serve(PACKED)), make_request()
    with pytest.raises(DataError, match="deleted unopened"):
        unpacked(replace(right, digest="0" * 64), request)
    assert opened == ["w"]
    assert kept(request) == []
    opened.clear()
    unpacked(right, request)  # the probe does see an archive that is read
    assert opened == ["w", "r"]


def test_nothing_is_kept_of_what_is_refused(server: Any, make_request: MakeRequest) -> None:
    hostile = gzip.compress(tar(member(GOOD, b"", type=tarfile.SYMTYPE, linkname="../canary")))
    request = make_request()

    def check(root: Path) -> None:
        assert (root / "train").is_dir()
        raise DataError("too few images")

    for packed, message in ((hostile, "does not belong"), (PACKED, "too few images")):
        with pytest.raises(DataError, match=message):
            unpacked(archive_of(packed, server.serve(packed)), request, check)
        assert kept(request) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ablate.data.fetch import unpacked
from ablate.data.manifest import Archive
from ablate.data.source import Request
def progress(stage, done, total):
    if sys.argv[3] in stage:
        os.kill(os.getpid(), signal.SIGKILL)
unpacked(eval(sys.argv[1]), Request(8, Path(sys.argv[2]), None, progress))
"""


@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_a_killed_fetch_is_never_taken_for_whole(
    server: Any, make_request: MakeRequest, start_python: Any, stage: str
) -> None:
    archive, request = archive_of(PACKED, server.serve(PACKED)), make_request()
    process = start_python(KILLED, archive, request.cache_dir, stage)
    process.communicate()
    assert process.returncode == -9
    assert [Path(name).suffix for name in kept(request)] == [".tmp"]
    root, _ = unpacked(archive, request)
    assert len(files(root)) == 2
    assert kept(request) == ["set"]


def test_own_copy_is_found_from_either_folder_or_missed(tmp_path: Path, make_request: MakeRequest) -> None:
    archive = archive_of(PACKED)
    with pytest.raises(DataError, match=r"expected train and val in .*set or in .* --data-dir") as caught:
        unpacked(archive, make_request(data_dir=tmp_path))
    assert archive.url in str(caught.value)
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
    outer, remedy = unpacked(archive, make_request(data_dir=tmp_path))
    inner, _ = unpacked(archive, make_request(data_dir=tmp_path / "set"))
    assert outer == inner == tmp_path / "set"
    assert "Restore these files" in remedy
    assert not (tmp_path / "cache").exists()
