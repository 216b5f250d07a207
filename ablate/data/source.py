"""What one dataset's file hands to the cache: what identifies its originals, and what they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.data.dataset import Channels, Images, ListedNoise, Progress
from ablate.errors import DataError

LISTED_PROBLEMS = 20
Original = Path | Images | Callable[[], Images]
"""An image file, its uint8 pixels, [H, W] or [H, W, 3], or what gives them when it is called."""


@dataclass(frozen=True)
class Request:
    """What a caller of `prepare` asked for, its paths absolute."""

    image_size: int
    cache_dir: Path
    data_dir: Path | None
    progress: Progress
    resize: str = "squash"
    split: float = 0.0
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Part:
    """One split: N names, all different and relative to the dataset's folder, N class ids, N originals."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    originals: Sequence[Original]


@dataclass(frozen=True)
class Contents:
    """All that is needed to decode a dataset; `remedy` is what to do about originals that cannot be read."""

    classes: tuple[str, ...]
    train: Part
    valid: Part
    remedy: str = ""
    normalisation: tuple[Channels, Channels] | None = None
    """Mean and std where 255 is 1; None takes those of the training pixels."""
    noise: ListedNoise | None = None
    """None when wrong labels are to be drawn."""
    upright: bool = True
    """Whether files are turned as their EXIF orientation says."""


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and not yet decoded; `read` is called when the cache does not hold it."""

    name: str
    kind: str
    """Short ASCII word that begins the name of the decoded folder."""
    identity: object
    """JSON value that changes when the originals do."""
    read: Callable[[], Contents]


def refuse(noun: str, where: str, problems: Sequence[str], remedy: str) -> DataError:
    """Return the error that lists problems: "2" `noun`s `where` ("2 files cannot be read"), the first 20."""
    lines = [f"{len(problems)} {noun}{'s' if len(problems) > 1 else ''} {where}:"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  … and {len(problems) - LISTED_PROBLEMS} more ({len(problems)} in all)")
    return DataError("\n".join([*lines, remedy]))
