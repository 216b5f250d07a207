"""What can go wrong before or around a trial: its message says what was expected, what came, what to do."""

import difflib
import errno
from collections.abc import Iterable


class AblateError(Exception):
    """Base of the errors a user can mend."""


class StudyError(AblateError):
    """A study file, a field of it, or a command-line override of a field is wrong."""


class DataError(AblateError):
    """A dataset is missing, incomplete, corrupt or not what it claims to be."""


class DeviceError(AblateError):
    """A device was asked for that this machine does not have."""


class RecordError(AblateError):
    """A stored record or table is missing, unreadable or not what its digest says."""


class ResultsError(AblateError):
    """A results or report folder cannot be used: not writable, in use, or holding nothing."""


class StoppedError(AblateError):
    """A run cannot go on, and no trial is to blame: the machine failed, or code changed meanwhile."""


FOREIGN_FAULTS = (Exception, SystemExit)
"""What code of the user's is to be caught with: one that exits is at fault like one that raises."""

MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EIO}
"""What the machine lacks, or fails in, and no trial is to be blamed for."""


def of_machine(error: BaseException | None) -> OSError | None:
    """The machine's failure that an error came from, if it did."""
    while error is not None and not (isinstance(error, OSError) and error.errno in MACHINE):
        error = error.__cause__ or error.__context__
    return error


LIMITS = {
    "trials of a study": 100_000,  # arms times seeds
    "values in a list": 1_000,  # levels, seeds: an endless one is among those that are refused
    "characters of a message": 2_000,  # of anybody's code, which is cut
    "times as long as it is wide, of an image": 100,
}


def beyond(what: str, count: float) -> str:
    """What to say where there is more of something than `LIMITS` allows; "" otherwise."""
    return f"expected at most {LIMITS[what]:,} {what}" if count > LIMITS[what] else ""


def bounded(message: str) -> str:
    """What may be anybody's text, without what is no UTF-8, and not too long."""
    text = message.encode(errors="backslashreplace").decode()
    most = LIMITS["characters of a message"]
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_line(error: BaseException) -> str:
    """What an error says, in a line of bounded length; "" where it says nothing."""
    return next(iter(bounded(str(error)).splitlines()), "")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for the end of a message, " Did you mean 'x'?", or "" where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
