"""The conditions of a gate as text, as `ablate check --help` tells them; read as Python's syntax, never run.

An arm's name stands as it is, quoted where its brackets do not pair.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ablate.errors import StudyError, nearest
from ablate.terminal import printable

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
SIGNS = dict(zip((ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq), OPERATORS, strict=True))
WORDS = ("worse", "better", "equivalent", "undecided", "higher", "lower")
COUNTS = ("failed", "missing")
RESERVED = ("low", "high", "difference", "verdict", "and", "or")
LONGEST = 2000
EXAMPLES = "write for example 'accuracy < 55%', 'high(ece) > 5%' or 'accuracy worse'"

NAME = "[A-Za-z_][A-Za-z0-9_]*"
NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
BRACKETS = {"(": 1, ")": -1}
CALL = re.compile(rf"(?<![A-Za-z_])(?!(?:{'|'.join(RESERVED)})\b)({NAME})\s*\(")
QUOTED = re.compile(r"""\s*(['"])(?P<arm>(?:(?!\1).)*)\1\s*\)""", re.DOTALL)
REWRITTEN = re.compile(
    rf"(?P<judged>\b(?!(?:{'|'.join(RESERVED)})\b){NAME}(?:\((?:{STRING})\))?)\s+(?P<word>{'|'.join(WORDS)})\b"
    rf"|(?P<percent>{NUMBER})\s*%|(?P<string>{STRING})|(?P<minus>−)|\s+"
)


@dataclass(frozen=True)
class Leaf:
    """One comparison, such as `low(difference(accuracy(epsilon=0.1))) < -1%`.

    `metric` is a column of the trials table, or one of `COUNTS`; without an `arm` it is about every one in
    turn. `asked` is "mean", "low", "high" or "verdict"; a verdict is always of a `difference`. `value` is a
    fraction where percent was written.
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
        raise StudyError(
            f"--fail-if: expected at most {LONGEST} characters, got {len(text)}; give several --fail-if"
        )
    return _Reader(text).condition()


def leaves(condition: Condition) -> Iterator[Leaf]:
    """The single comparisons in it, from left to right."""
    if isinstance(condition, Leaf):
        yield condition
    else:
        for part in condition.parts:
            yield from leaves(part)


class _Reader:
    """The text as Python's syntax: arms as strings, verdicts in full, and `5 % _` for 5%."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.source = REWRITTEN.sub(self._rewrite, self._with_quoted_arms()).strip()

    def _rewrite(self, match: re.Match[str]) -> str:
        if match["judged"]:
            return f"verdict({match['judged']}) == {match['word']}"
        if match["percent"]:
            return f"{match['percent']} % _ "
        return match["string"] or ("-" if match["minus"] else " ")

    def _with_quoted_arms(self) -> str:
        parts, place = [], 0
        for call in CALL.finditer(self.text):
            if call.start() < place:
                continue
            if quoted := QUOTED.match(self.text, call.end()):
                arm, end = quoted["arm"], quoted.end() - 1
            else:
                depths = itertools.accumulate(BRACKETS.get(sign, 0) for sign in self.text[call.end() :])
                end = next((at for at, depth in enumerate(depths, call.end()) if depth < 0), -1)
                arm = self.text[call.end() : end].strip()
            if end < 0:
                self.refuse("')'", "")
            if not arm:
                self.refuse("the name of an arm", self.text[call.start() : end + 1])
            parts += [self.text[place : call.start()], f"{call[1]}({arm!r}"]
            place = end
        return "".join([*parts, self.text[place:]])

    def refuse(self, expected: str, part: str | ast.AST, hint: str = EXAMPLES) -> NoReturn:
        shown = (self._source_of(part) if isinstance(part, ast.AST) else part).replace(" % _", "%")[:60]
        came = f"got {printable(shown)!r}" if shown.strip() else "which is not there"
        raise StudyError(f"--fail-if {printable(self.text)!r}: expected {expected}, {came}; {hint}")

    def _source_of(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.source, node) or ""

    def condition(self) -> Condition:
        try:
            with warnings.catch_warnings():
                # Python only warns of some text that is no condition, as of 5or
                warnings.simplefilter("error")
                tree = ast.parse(self.source, mode="eval")
        except SyntaxError as error:
            rest = self.source[max((error.offset or 1) - 1, 0) :]
            self.refuse("a condition that ends or goes on with 'and' or 'or'", rest)
        except (ValueError, MemoryError, RecursionError):
            self.refuse("a condition with few brackets and plain text", self.text)
        return self._condition(tree.body)

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(op=op, values=parts):
                word = "and" if isinstance(op, ast.And) else "or"
                return Joined(word, tuple(self._condition(part) for part in parts))
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in SIGNS:
                return self._leaf(left, SIGNS[type(sign)], right)
        return self.refuse(
            f"a metric, then one of {' '.join(OPERATORS)} or a verdict ({', '.join(WORDS)})", node
        )

    def _leaf(self, left: ast.expr, sign: str, right: ast.expr) -> Leaf:
        asked, difference = "mean", False
        match left:
            case ast.Call(func=ast.Name(id="verdict" | "low" | "high" as asked), args=[left], keywords=[]):
                pass
        if asked == "verdict":
            if sign not in ("==", "!="):
                example = "write for example 'verdict(accuracy) == worse'"
                self.refuse("'==' or '!=' after a verdict", sign, example)
            return Leaf(*self._metric(left), asked, True, sign, self._word(right))
        match left:
            case ast.Call(func=ast.Name(id="difference"), args=[left], keywords=[]):
                difference = True
        return Leaf(*self._metric(left), asked, difference, sign, *self._number(right))

    def _metric(self, node: ast.expr) -> tuple[str, str | None]:
        match node:
            case ast.Name(id=name) if name not in RESERVED:
                return name, None
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(str(arm))]) if name not in RESERVED:
                return name, arm
        return self.refuse("a metric", node)

    def _word(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=word) | ast.Constant(value=str(word)) if word in WORDS:
                return word
        hint = f"see the report's words.{nearest(self._source_of(node), WORDS)}"
        return self.refuse(f"a verdict ({', '.join(WORDS)})", node, hint)

    def _number(self, node: ast.expr) -> tuple[float, bool]:
        """The number, and whether it was written in percent."""
        match node:
            case ast.BinOp(left=fraction, op=ast.Mod(), right=ast.Name(id="_")):
                return self._number(fraction)[0] / 100, True
        text = self._source_of(node).replace(" ", "")
        if not re.fullmatch(f"[-+]?{NUMBER}", text) or abs(float(text)) > 1e300:  # not 1_0 or 0x1
            self.refuse("a finite number", node, "write it as 0.55 or 55%")
        return float(text), False
