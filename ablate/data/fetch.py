"""An archive's unpacked files: one's own copy, or downloaded, checked and unpacked once into the cache.

Not by torchvision, which knows MD5 alone, and no timeout or bound. Here what is not the published archive is
never opened, and even of that nothing is written outside the cache.
"""

import hashlib
import http.client
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ablate.data.cache import locked, temporary_beside
from ablate.data.folder import is_dropping
from ablate.data.source import Request
from ablate.errors import DataError

TIMEOUT = 30.0  # seconds that the server may stay silent


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive to download, of so many bytes, with one folder in it."""

    url: str
    size: int
    digest: str
    """SHA-256, or MD5 (32 digits) where no other was ever published: that shows damage, and no forgery."""
    folder: str
    contents: tuple[str, ...]
    """Names of the folder's entries that tell a copy of it."""


def find_unpacked(archive: Archive, cache_dir: Path, data_dir: Path | None) -> Path | None:
    """The archive's folder where it is here: in `data_dir`, or that itself; without one, in the cache."""
    if data_dir is None:
        root = cache_dir / "sources" / archive.folder
        return root if root.exists() else None
    copies = (data_dir / archive.folder, data_dir)
    return next((root for root in copies if all((root / name).exists() for name in archive.contents)), None)


def unpacked(archive: Archive, request: Request) -> tuple[Path, str]:
    """Return the archive's folder, and what to do about missing or damaged files; no `data_dir` downloads."""
    if (data_dir := request.data_dir) is not None:
        if root := find_unpacked(archive, request.cache_dir, data_dir):
            return root, f"Restore these files from {archive.url}; no image is ever skipped."
        raise DataError(
            f"expected {' and '.join(archive.contents)} in {data_dir / archive.folder} or {data_dir}. "
            f"Point --data-dir at an unpacked copy of {archive.url}, or leave it out to download."
        )
    root = request.cache_dir / "sources" / archive.folder
    with locked(root, request.progress):
        if not root.exists():
            with temporary_beside(root) as temporary:
                packed, target = Path(temporary, archive.url.rpartition("/")[2]), Path(temporary, "unpacked")
                download(archive, packed, request)
                target.mkdir()
                extract(packed, target, request)
                (target / archive.folder).rename(root)
    return root, f"Delete {root} and run again to download it anew."


def download(archive: Archive, packed: Path, request: Request) -> None:
    """Download an archive; `packed` must not be opened when this raises a DataError."""
    kind = "MD5" if len(archive.digest) == 32 else "SHA-256"
    digest = hashlib.new(kind.replace("-", ""), usedforsecurity=False)
    received = 0
    try:
        with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as response, packed.open("wb") as file:
            # one block past the expected size is enough to know that it is another file
            while received <= archive.size and (block := response.read(1 << 20)):
                file.write(block)
                digest.update(block)
                received += len(block)
                request.progress(f"downloading {archive.url}", received, archive.size)
        if (received, digest.hexdigest()) != (archive.size, archive.digest):
            packed.unlink()
            came = f"received {received} bytes with {kind} {digest.hexdigest()}, deleted unopened"
            raise ValueError(f"expected {archive.size} bytes with {kind} {archive.digest}, {came}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the response too, and holds the connection
        raise DataError(
            f"could not download {archive.url}: {str(error) or type(error).__name__}. Try again, give the "
            "folder of a copy with --data-dir DIR, or run without a download by --profile quick."
        ) from error


def extract(packed: Path, target: Path, request: Request) -> None:
    """Unpack an archive below a folder, macOS droppings aside; what would leave it is a DataError."""
    try:
        with tarfile.open(packed, "r|gz") as tar:
            for count, member in enumerate(tar):
                if not is_dropping(Path(member.name).name):
                    tar.extract(member, target, filter="data")
                if count % 100 == 0:
                    request.progress(f"unpacking {packed.name}", count + 1, 0)
    except tarfile.TarError as error:
        raise DataError(f"{packed} was refused: {error}. Nothing of it was kept.") from error
