"""Conditions as `ablate check --help` tells them; an arm's name is quoted where its brackets do not pair."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ablate.errors import StudyError, nearest
from ablate.terminal import printable

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
WORDS = ("worse", "better", "equivalent", "undecided", "higher", "lower")
COUNTS = ("failed", "missing")
LONGEST = 2000
EXAMPLES = "write for example 'accuracy < 55%', 'high(ece) > 5%' or 'accuracy worse'"

METRIC = r"(?!(?:low|high|difference|verdict|and|or)\b)[^\W\d]\w*"
NUMBER = r"[-+−]?\s*(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.])"
VERDICT = rf"(?:{'|'.join(WORDS)})\b"
PLAIN = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"  # brackets pair, one pair within another at most
ARM = re.compile(rf"""\s*(?:(['"])(?P<quoted>(?:(?!\1).)*)\1|(?P<plain>{PLAIN}?))\s*\)""", re.DOTALL)


@dataclass(frozen=True)
class Leaf:
    """One comparison, such as `low(difference(accuracy(epsilon=0.1))) < -1%`; it can be of every arm in turn.

    `metric` is a column of the trials table, or one of `COUNTS`. `asked` is "mean", "low", "high" or
    "verdict", always of a `difference`. `value` is a fraction where percent was written.
    """

    metric: str
    arm: str | None
    asked: str
    difference: bool
    operator: str
    value: Any
    percent: bool = False


@dataclass(frozen=True)
class Joined:
    """Conditions of which all ("and"), or any ("or"), must hold."""

    word: str
    parts: tuple[Leaf | Joined, ...]


Condition = Leaf | Joined


def parse(text: str) -> Condition:
    """Read one condition; a StudyError says which part cannot be read."""
    if len(text) > LONGEST:
        raise StudyError(f"--fail-if: expected at most {LONGEST} characters, got {len(text)}; give several")
    reader = _Reader(text)
    try:
        condition = reader.joined("or")
    except RecursionError:
        reader.refuse("a condition with few brackets", text)
    if text[reader.at :].strip():
        reader.refuse("a condition that ends or goes on with 'and' or 'or'")
    return condition


def leaves(condition: Condition) -> list[Leaf]:
    """The single comparisons in it, from left to right."""
    if isinstance(condition, Leaf):
        return [condition]
    return [leaf for part in condition.parts for leaf in leaves(part)]


class _Reader:
    """A text that is read up to `at`."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def refuse(self, expected: str, part: str | None = None, hint: str = EXAMPLES) -> NoReturn:
        """Say that something else was expected in place of a part, or of all that is left."""
        part = (self.text[self.at :] if part is None else part).strip()
        came = f"got {printable(part[:60])!r}" if part else "which is not there"
        raise StudyError(f"--fail-if {printable(self.text)!r}: expected {expected}, {came}; {hint}")

    def take(self, pattern: str, expected: str = "", hint: str = EXAMPLES) -> str:
        """What stands next, where it is of this pattern; else nothing, unless something is `expected`."""
        found = re.compile(rf"\s*({pattern})").match(self.text, self.at)
        if not found and expected:
            self.refuse(expected, hint=hint)
        self.at = found.end() if found else self.at
        return found[1] if found else ""

    def joined(self, word: str) -> Condition:
        parts: list[Condition] = []
        while not parts or self.take(rf"{word}\b"):
            parts.append(self.joined("and") if word == "or" else self._part())
        return Joined(word, tuple(parts)) if len(parts) > 1 else parts[0]

    def _part(self) -> Condition:
        if self.take(r"\("):
            condition = self.joined("or")
            self.take(r"\)", "')'")
            return condition
        asked = self.take(r"(?:low|high|verdict)\b") or "mean"
        if asked != "mean":
            self.take(r"\(", "'('")
        difference = asked != "verdict" and bool(self.take(r"difference\s*\("))
        metric = self.take(METRIC, "a metric")
        arm = self._arm(metric)
        for _ in range((asked != "mean") + difference):
            self.take(r"\)", "')'")
        if asked == "mean" and not difference and (word := self.take(VERDICT)):
            return Leaf(metric, arm, "verdict", True, "==", word)
        words = f"a verdict ({', '.join(WORDS)})"
        if asked == "verdict":
            sign = self.take("[=!]=", "'==' or '!=' after a verdict")
            hint = f"see the report's words.{nearest(self.text[self.at :].strip(), WORDS)}"
            word = self.take(rf"(['\"]?){VERDICT}\2", words, hint).strip("'\"")
            return Leaf(metric, arm, asked, True, sign, word)
        sign = self.take("[<>]=?|[=!]=", f"one of {' '.join(OPERATORS)} or {words} after a metric")
        number = self.take(NUMBER)
        value = float("".join(number.replace("−", "-").split()) or "nan")
        if not abs(value) < 1e300:
            self.refuse("a finite number", number or None, "write it as 0.55 or 55%")
        percent = bool(self.take("%"))
        return Leaf(metric, arm, asked, difference, sign, value / 100 if percent else value, percent)

    def _arm(self, metric: str) -> str | None:
        if not self.take(r"\("):
            return None
        found = ARM.match(self.text, self.at) or self.refuse("')'", "")
        self.at = found.end()
        return found["quoted"] or found["plain"] or self.refuse("the name of an arm", f"{metric}()")
