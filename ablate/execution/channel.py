"""Frames between the driver, a supervisor and its worker: what each is about, whole, and checked."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = struct.Struct("!4s16s4sII")  # what begins a frame, its job, its kind, and the payload's length and sum
MAGIC = b"abl\x1a"
LONGEST = 1 << 30  # bytes of a payload
AT_ONCE = 1 << 20
SETUP, FRESH, WARM, BEGUN, TOLD, DONE, LOST, GONE, STOP = (
    b"setu", b"fres", b"warm", b"begu", b"told", b"done", b"lost", b"gone", b"stop",
)  # fmt: skip


class Frame(NamedTuple):
    """A message of a kind, about one attempt of a job."""

    kind: bytes
    about: bytes
    payload: bytes = b""


def attempt_mark(name: str, attempt: int) -> bytes:
    """What stands for an attempt of a job in frames."""
    return hashlib.blake2b(f"{attempt} {name}".encode(), digest_size=16).digest()


class Channel:
    """One end of a pair of sockets that frames go through."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self._came = end, bytearray()

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self.end.fileno()

    def close(self) -> None:
        """Hang up, also where a forked process has a copy."""
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_RDWR)
        self.end.close()

    def send(self, kind: bytes, about: bytes, payload: bytes = b"") -> None:
        """Send a frame, waiting while the other end does not read."""
        self.end.sendall(HEAD.pack(MAGIC, about, kind, len(payload), zlib.crc32(payload)))
        self.end.sendall(payload)

    def receive(self) -> Iterator[Frame]:
        """The frames that have come whole, without waiting for more.

        At the end of all is an EOFError; where something else came than frames, a ValueError.
        """
        chunk = None
        try:
            while chunk != b"" and len(self._came) <= HEAD.size + LONGEST:
                self._came += (chunk := self.end.recv(AT_ONCE, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        except ConnectionError:
            chunk = b""
        while len(self._came) >= HEAD.size:
            magic, about, kind, length, checksum = HEAD.unpack_from(self._came)
            if magic != MAGIC or length > LONGEST:
                raise ValueError("something else was written where its results go")
            if len(self._came) < HEAD.size + length:
                break
            payload = bytes(self._came[HEAD.size : HEAD.size + length])
            del self._came[: HEAD.size + length]
            if zlib.crc32(payload) != checksum:
                raise ValueError("something else was written into its results")
            yield Frame(kind, about, payload)
        if chunk == b"":
            raise EOFError


def family(process: int) -> list[int]:
    """A process and all that it started, whose groups may be their own, as far as Linux tells."""
    children = list[int]()
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    return [process, *(one for child in children for one in family(child))]
