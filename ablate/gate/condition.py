"""The conditions of a gate as text: read as Python's syntax by a whitelist, and never run as code.

A condition compares what was measured with a number, or asks for a verdict:

    accuracy < 0.55             the mean of any arm; accuracy(epsilon=0.1) is of one
    low(accuracy) < 55%         an end of its interval: low or high
    difference(accuracy) < -1%  against what it is compared with; low(difference(accuracy)) is an end
    verdict(ece) != "worse"     and in short `ece worse` for verdict(ece) == "worse"
    failed > 0                  trials: failed, missing

Join them by `and`, `or` and brackets. An arm's name stands as it is, quoted where its brackets do not pair.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
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
SIGNS = dict(zip((ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq), OPERATORS, strict=True))
WORDS = ("worse", "better", "equivalent", "undecided", "higher", "lower")
COUNTS = ("failed", "missing")
FUNCTIONS = ("low", "high", "difference", "verdict")
RESERVED = (*FUNCTIONS, "and", "or")
LONGEST = 2000
EXAMPLES = "write for example 'accuracy < 55%', 'high(ece) > 5%' or 'accuracy worse'"

NAME = "[A-Za-z_][A-Za-z0-9_]*"
CALL = re.compile(rf"({NAME})\s*\(")
ARM = re.compile(rf"({NAME})\((\d+)\)")
QUOTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*\)""")
NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
PERCENT = re.compile(rf"({NUMBER.pattern})\s*%")
SHORT = re.compile(rf"\b({NAME}(?:\(\d+\))?)\s+({'|'.join(WORDS)})\b")


@dataclass(frozen=True)
class Value:
    """A column of the trials table, or one of `COUNTS`, of one arm; None is every arm in turn."""

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
    """A verdict that is asked for: `accuracy worse`, or `verdict(accuracy) != "equivalent"`."""

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
        StudyError: it is none, with the part that cannot be read.
    """
    if len(text) > LONGEST:
        raise StudyError(
            f"--fail-if: expected at most {LONGEST} characters, got {len(text)}; give several --fail-if"
        )
    return _Reader(text).condition()


def leaves(condition: Condition) -> Iterator[Limit | Judged]:
    """The single conditions in it, from left to right."""
    if isinstance(condition, Joined):
        for part in condition.parts:
            yield from leaves(part)
    else:
        yield condition


class _Reader:
    """The text as Python's syntax, in which numbers stand for the names of arms."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.arms: list[str] = []
        source = " ".join(self._without_arms().replace("−", "-").split())
        source = SHORT.sub(lambda m: m[0] if m[1] in RESERVED else f"verdict({m[1]}) == {m[2]}", source)
        self.source = PERCENT.sub(r"\1 % _ ", source).strip()

    def _without_arms(self) -> str:
        parts, place = [], 0
        for call in CALL.finditer(self.text):
            if call.start() < place or call[1] in RESERVED:
                continue
            quoted = QUOTED.match(self.text, call.end())
            if quoted:
                arm, end = quoted[1] or quoted[2] or "", quoted.end() - 1
            else:
                end = self._closing_bracket(call.end())
                arm = self.text[call.end() : end].strip()
            if not arm:
                self.refuse("the name of an arm", self.text[call.start() : end + 1])
            parts += [self.text[place : call.end()], str(len(self.arms))]
            self.arms.append(arm)
            place = end
        return "".join([*parts, self.text[place:]])

    def _closing_bracket(self, start: int) -> int:
        depth = 0
        for place in range(start, len(self.text)):
            depth += {"(": 1, ")": -1}.get(self.text[place], 0)
            if depth < 0:
                return place
        return self.refuse("')'", "")

    def refuse(self, expected: str, part: str | ast.AST, hint: str = EXAMPLES) -> NoReturn:
        if isinstance(part, ast.AST):
            part = ast.get_source_segment(self.source, part) or ""
        named = ARM.sub(self._with_arm, part.replace(" % _", "%"))
        came = f"got {printable(named[:60])!r}" if named.strip() else "which is not there"
        raise StudyError(f"--fail-if {printable(self.text)!r}: expected {expected}, {came}; {hint}")

    def _with_arm(self, call: re.Match[str]) -> str:
        return call[0] if int(call[2]) >= len(self.arms) else f"{call[1]}({self.arms[int(call[2])]})"

    def condition(self) -> Condition:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error"
                )  # Python only warns of some text that is no condition, as of 5or
                tree = ast.parse(self.source, mode="eval")
        except SyntaxError as error:
            place = max((error.offset or 1) - 1, 0)
            self.refuse("a condition that ends or goes on with 'and' or 'or'", self.source[place:])
        except (ValueError, MemoryError, RecursionError):
            self.refuse("a condition with few brackets and plain text", self.text)
        return self._condition(tree.body)

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(op=op, values=parts):
                word: Literal["and", "or"] = "and" if isinstance(op, ast.And) else "or"
                return Joined(word, tuple(self._condition(part) for part in parts))
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in SIGNS:
                return self._compared(left, SIGNS[type(sign)], right)
        return self.refuse(
            f"a metric, then one of {' '.join(OPERATORS)} or a verdict ({', '.join(WORDS)})", node
        )

    def _compared(self, left: ast.expr, sign: str, right: ast.expr) -> Limit | Judged:
        if (judged := self._argument("verdict", left)) is not None:
            if sign not in ("==", "!="):
                self.refuse(
                    "'==' or '!=' after a verdict", sign, "write for example 'verdict(accuracy) == worse'"
                )
            return Judged(self._value(judged), sign, self._word(right))
        end: Literal["", "low", "high"] = ""
        for name in ("low", "high"):
            if (inner := self._argument(name, left)) is not None:
                end, left = name, inner
                break
        inner = self._argument("difference", left)
        number, percent = self._number(right)
        return Limit(self._value(inner or left), end, inner is not None, sign, number, percent)

    def _argument(self, function: str, node: ast.expr) -> ast.expr | None:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name == function:
                return argument
        return None

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Name(id=name) if name not in RESERVED:
                return Value(name)
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=int(place))], keywords=[]) if (
                name not in RESERVED
            ):
                return Value(name, self.arms[place])
        return self.refuse("a metric", node)

    def _word(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=word) | ast.Constant(value=str(word)) if word in WORDS:
                return word
        given = ast.get_source_segment(self.source, node) or ""
        hint = f"see the report's words.{nearest(given, WORDS)}"
        return self.refuse(f"a verdict ({', '.join(WORDS)})", node, hint)

    def _number(self, node: ast.expr) -> tuple[float, bool]:
        match node:
            case ast.BinOp(left=fraction, op=ast.Mod(), right=ast.Name(id="_")):
                return self._number(fraction)[0] / 100, True
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant() as positive):
                number = self._number(positive)[0]
                return -number if isinstance(sign, ast.USub) else number, False
            case ast.Constant(value=int() | float() as plain) if abs(plain) <= 1e300:
                if NUMBER.fullmatch(ast.get_source_segment(self.source, node) or ""):  # not 1_0 or 0x1
                    return float(plain), False
        return self.refuse("a finite number", node, "write it as 0.55 or 55%")
