"""The conditions of a gate as text: parsed by a small grammar of their own, and never run as code.

    any       = all {"or" all}
    all       = part {"and" part}
    part      = "(" any ")" | verdict | operand (OP number | WORD)
    operand   = ("low" | "high") "(" amount ")" | amount
    amount    = "difference" "(" value ")" | value
    verdict   = "verdict" "(" value ")" ("==" | "!=") WORD
    value     = NAME ["(" ARM ")"]
    number    = digits, with "%" for hundredths

OP is one of < <= > >= == !=, WORD a verdict such as worse, NAME a metric or `failed` or `missing`. ARM is the
arm's name as it is, quoted where its brackets do not pair.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ablate.errors import StudyError, nearest
from ablate.terminal import printable

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
WORDS = ("worse", "better", "equivalent", "undecided", "higher", "lower")
COUNTS = ("failed", "missing")
RESERVED = ("low", "high", "difference", "verdict", "and", "or")
LONGEST, DEEPEST = 2000, 20
EXAMPLES = "write for example 'accuracy < 55%', 'high(ece) > 5%' or 'accuracy worse'"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPERATOR = re.compile("<=|>=|==|!=|<|>")
NUMBER = re.compile(r"[-−+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![0-9A-Za-z_.])")


@dataclass(frozen=True)
class Value:
    """A metric, of one arm or of every arm in turn.

    Attributes:
        metric: a column of the trials table, or one of `COUNTS`.
        arm: the arm's name; None is every arm.
    """

    metric: str
    arm: str | None = None


@dataclass(frozen=True)
class Limit:
    """A number that is compared with another: `accuracy < 55%`.

    Attributes:
        value: which metric of which arm.
        end: "" the mean, "low" and "high" the ends of its interval.
        difference: of what the metric is compared with, instead of the metric itself.
        operator: a key of `OPERATORS`.
        number: as a fraction where percent was written.
        percent: whether it was.
    """

    value: Value
    end: Literal["", "low", "high"]
    difference: bool
    operator: str
    number: float
    percent: bool


@dataclass(frozen=True)
class Judged:
    """A verdict that is asked for: `accuracy worse`, or `verdict(accuracy) != equivalent`."""

    value: Value
    operator: str
    word: str


@dataclass(frozen=True)
class Joined:
    """Conditions of which all, or any, must hold."""

    word: Literal["and", "or"]
    parts: tuple[Condition, ...]


Condition = Limit | Judged | Joined


def parse(text: str) -> Condition:
    """Read one condition.

    Raises:
        StudyError: it does not follow the grammar, with the place where it stops doing so.
    """
    if len(text) > LONGEST:
        raise StudyError(
            f"--fail-if: expected at most {LONGEST} characters, got {len(text)}; give several --fail-if"
        )
    reader = _Reader(text)
    found = reader.any_of(depth=0)
    if reader.rest():
        reader.refuse("the end, 'and' or 'or'")
    return found


def leaves(condition: Condition) -> Iterator[Limit | Judged]:
    """The single conditions in it, from left to right."""
    if isinstance(condition, Joined):
        for part in condition.parts:
            yield from leaves(part)
    else:
        yield condition


class _Reader:
    """The text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def rest(self) -> str:
        return self.text[self.place :].lstrip()

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """What comes next, if it matches; white space before it is skipped."""
        start = len(self.text) - len(self.rest())
        match = pattern.match(self.text, start)
        if match is None:
            return None
        self.place = match.end()
        return match[0]

    def sees(self, sign: str) -> bool:
        """Take the sign, if it comes next."""
        return self.take(re.compile(re.escape(sign))) is not None

    def expect(self, sign: str) -> None:
        if not self.sees(sign):
            self.refuse(f"'{sign}'")

    def word(self) -> str:
        """The name that comes next, left where it is; "" where none does."""
        match = NAME.match(self.rest())
        return match[0] if match else ""

    def refuse(self, expected: str, hint: str = "") -> NoReturn:
        rest = self.rest()
        came = f"at {printable(rest[:40])!r}" if rest else "at the end"
        raise StudyError(
            f"--fail-if {printable(self.text)!r}: expected {expected} {came}; {hint or EXAMPLES}"
        )

    def any_of(self, depth: int) -> Condition:
        return self.joined("or", lambda: self.joined("and", lambda: self.part(depth)))

    def joined(self, word: Literal["and", "or"], one: Callable[[], Condition]) -> Condition:
        parts = [one()]
        while self.word() == word:
            self.take(NAME)
            parts.append(one())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def part(self, depth: int) -> Condition:
        if self.sees("("):
            if depth == DEEPEST:
                self.refuse(f"brackets at most {DEEPEST} deep", "give several --fail-if")
            found = self.any_of(depth + 1)
            self.expect(")")
            return found
        return self.judged() if self.word() == "verdict" else self.limit()

    def judged(self) -> Judged:
        self.take(NAME)
        self.expect("(")
        value = self.value()
        self.expect(")")
        sign = self.take(OPERATOR)
        if sign not in ("==", "!="):
            self.refuse("'==' or '!=' before", "write for example 'verdict(accuracy) == worse'")
        return Judged(value, sign, self.verdict_word())

    def verdict_word(self) -> str:
        word = self.word()
        if word not in WORDS:
            self.refuse(f"a verdict ({', '.join(WORDS)})", f"see the report's words.{nearest(word, WORDS)}")
        self.take(NAME)
        return word

    def limit(self) -> Condition:
        end: Literal["", "low", "high"] = ""
        for name in ("low", "high"):
            if self.word() == name:
                self.take(NAME)
                self.expect("(")
                end = name
        difference, value = self.amount()
        if end:
            self.expect(")")
        if not end and not difference and self.word() in WORDS:
            return Judged(value, "==", self.verdict_word())
        sign = self.take(OPERATOR)
        if sign is None:
            self.refuse(f"one of {' '.join(OPERATORS)} or a verdict ({', '.join(WORDS)})")
        number, percent = self.number()
        return Limit(value, end, difference, sign, number, percent)

    def amount(self) -> tuple[bool, Value]:
        if self.word() != "difference":
            return False, self.value()
        self.take(NAME)
        self.expect("(")
        value = self.value()
        self.expect(")")
        return True, value

    def value(self) -> Value:
        name = self.word()
        if not name or name in RESERVED:
            self.refuse("a metric")
        self.take(NAME)
        if not self.sees("("):
            return Value(name)
        arm = self.arm()
        self.expect(")")
        return Value(name, arm)

    def arm(self) -> str:
        """An arm's name: quoted, or up to the bracket that closes it."""
        for quote in "\"'":
            quoted = self.take(re.compile(f"{quote}[^{quote}]*{quote}"))
            if quoted is not None:
                return quoted[1:-1]
        start, depth = self.place, 0
        while self.place < len(self.text):
            sign = self.text[self.place]
            depth += (sign == "(") - (sign == ")")
            if depth < 0:
                break
            self.place += 1
        arm = self.text[start : self.place].strip()
        if not arm:
            self.refuse("the name of an arm")
        return arm

    def number(self) -> tuple[float, bool]:
        found = self.take(NUMBER)
        if found is None:
            self.refuse("a number", "write it as 0.55 or 55%")
        number, percent = float(found.replace("−", "-")), self.sees("%")
        if abs(number) > 1e300:
            self.refuse("a finite number before", "write it as 0.55 or 55%")
        return (number / 100 if percent else number), percent
