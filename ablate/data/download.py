"""Fetch one file whose size and digest are known, or leave nothing behind."""

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablate.data.dataset import Progress
from ablate.errors import DataError

TIMEOUT_SECONDS = 30.0
"""How long the server may stay silent."""

_BLOCK = 1 << 20
_SPELLING = {"sha256": "SHA-256", "md5": "MD5"}


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        url: where it is.
        size: in bytes.
        digest: of its content, in hexadecimal digits.
        algorithm: of the digest. MD5 only where no SHA-256 was ever published: it shows damage and a
            replaced file, but whoever made the file could have made a second one with the same digest.
    """

    url: str
    size: int
    digest: str
    algorithm: Literal["sha256", "md5"] = "sha256"


def download(
    remote: RemoteFile, target: Path, progress: Progress, *, timeout: float = TIMEOUT_SECONDS
) -> None:
    """Download a file to `target` by way of `target.part`.

    The bytes are hashed as they arrive, and `target` appears only when size and digest are right: what was
    not checked is never opened.

    Args:
        remote: what to fetch.
        target: where it goes, in a folder that exists.
        progress: told the bytes received.
        timeout: seconds the server may stay silent.

    Raises:
        DataError: The server cannot be reached, stops early, or sends other bytes than expected.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        found = _receive(remote, part, progress, timeout)
        if found != (remote.size, remote.digest):
            kind = _SPELLING[remote.algorithm]
            raise _failed(
                remote,
                f"expected {remote.size} bytes with {kind} {remote.digest}, "
                f"received {found[0]} bytes with {kind} {found[1]}; they were deleted unopened",
            )
        part.replace(target)
    except urllib.error.HTTPError as error:
        with error:  # it is the response too, and holds the connection
            raise _failed(remote, str(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(remote, str(error) or type(error).__name__) from error
    finally:
        part.unlink(missing_ok=True)


def _receive(remote: RemoteFile, part: Path, progress: Progress, timeout: float) -> tuple[int, str]:
    """Return the number of bytes received and their digest; one block past the expected size is enough."""
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    received = 0
    with urllib.request.urlopen(remote.url, timeout=timeout) as response, part.open("wb") as file:
        while received <= remote.size and (block := response.read(_BLOCK)):
            file.write(block)
            digest.update(block)
            received += len(block)
            progress(f"downloading {remote.url}", received, remote.size)
    return received, digest.hexdigest()


def _failed(remote: RemoteFile, cause: str) -> DataError:
    return DataError(
        f"could not download {remote.url}: {cause}. Try again; or give the folder of a copy with "
        "--data-dir DIR; or run on data that needs no download with --profile quick."
    )
