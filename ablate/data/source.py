"""What one dataset's file hands to the cache: what identifies its originals, and how to decode them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.data.dataset import Channels, Images, Progress
from ablate.data.noise import ListedNoise
from ablate.errors import DataError

LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class Request:
    """What a caller of `prepare` asked for, its paths absolute."""

    image_size: int
    cache_dir: Path
    data_dir: Path | None
    progress: Progress
    resize: str = "squash"


@dataclass(frozen=True)
class Part:
    """The originals of one split.

    Attributes:
        names: N names relative to the dataset's folder, all different.
        labels: N class ids.
        write: decodes the originals, in order, into a uint8 [N, H, W, 3] array, and returns what was wrong
            with them, one line for each bad file; the array counts only if there is none.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    write: Callable[[Images], list[str]]


@dataclass(frozen=True)
class Contents:
    """All that is needed to decode a dataset.

    Attributes:
        classes: K names for people, in the order of the class ids.
        remedy: what to do about an original that cannot be read.
        normalisation: mean and std of the channels where 255 is 1; None computes them from the training
            pixels.
        noise: mislabelled training labels that come with the dataset; None when they are to be drawn.
    """

    classes: tuple[str, ...]
    train: Part
    valid: Part
    remedy: str = ""
    normalisation: tuple[Channels, Channels] | None = None
    noise: ListedNoise | None = None


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and not yet decoded.

    Attributes:
        name: as it was asked for.
        kind: short ASCII word that begins the name of the decoded folder.
        identity: JSON value that changes when the originals do.
        read: called when the decoded images are not in the cache.
    """

    name: str
    kind: str
    identity: object
    read: Callable[[], Contents]


def refuse(noun: str, where: str, problems: Sequence[str], remedy: str) -> DataError:
    """Return the error that lists a dataset's problems: their number, the first 20, the remedy.

    The number is followed by `noun`, in the singular (`file`), and `where` (`cannot be decoded`).
    """
    lines = [f"{len(problems)} {noun}{'s' if len(problems) > 1 else ''} {where}:"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  … and {len(problems) - LISTED_PROBLEMS} more ({len(problems)} in all)")
    return DataError("\n".join([*lines, remedy]))
