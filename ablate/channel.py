"""Frames between driver, supervisor and child: each a kind, the mark of a job, and a checked payload."""

import contextlib
import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator

HEAD = struct.Struct("!4s4s16sII")  # magic, kind, mark, length and checksum of the payload that follows
MAGIC = b"abl\x1a"
LONGEST = 1 << 30  # bytes of a payload


class Channel(socket.socket):
    """One end of a pair of sockets that frames go through."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self._came, self._own, self._sending = bytearray(), os.getpid(), threading.Lock()

    def put(self, kind: bytes, mark: bytes, payload: bytes) -> None:
        """Send a frame, from any thread; a copy of this process, which code forked, has no say and ends."""
        if os.getpid() != self._own:
            os._exit(0)
        with self._sending:
            self.sendall(HEAD.pack(MAGIC, kind, mark, len(payload), zlib.crc32(payload)) + payload)

    def frames(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """The kind, mark and payload of what came whole, then EOFError if it ended; ValueError: no frame."""
        chunk = None
        with contextlib.suppress(BlockingIOError):
            while chunk != b"" and len(self._came) <= HEAD.size + LONGEST:
                try:
                    chunk = self.recv(1 << 20, socket.MSG_DONTWAIT)
                except ConnectionError:
                    chunk = b""
                self._came += chunk
        while len(self._came) >= HEAD.size:
            magic, kind, mark, length, checksum = HEAD.unpack_from(self._came)
            end = HEAD.size + length
            if magic == MAGIC and length <= LONGEST and len(self._came) < end:
                break
            payload = bytes(self._came[HEAD.size : end])
            if magic != MAGIC or zlib.crc32(payload) != checksum:
                raise ValueError("something else was written where its results go")
            del self._came[:end]
            yield kind, mark, payload
        if chunk == b"":
            raise EOFError

    def hang_up(self) -> None:
        """Close it, also where a forked process has a copy."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        self.close()


def channels() -> tuple[Channel, Channel]:
    """Both ends of a pair."""
    ours, theirs = socket.socketpair()
    return Channel(ours.detach()), Channel(theirs.detach())
