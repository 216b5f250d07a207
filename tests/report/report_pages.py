"""Reading a page back with the standard library's parser: its elements, its tables, its words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

from markdown_it import MarkdownIt

VOID = {"meta", "img", "br", "source", "link", "input", "hr"}
Attributes = dict[str, str | None]


def squeezed(text: str) -> str:
    """Text with runs of white space as one space, as a browser shows it."""
    return " ".join(text.split())


def rows_of(table: dict[str, Any] | None) -> Iterator[dict[str, dict[str, Any]]]:
    """Of a table of report.json: the cells of each row by the heads of their columns."""
    for row in (table or {"rows": []})["rows"]:
        yield dict(zip((head["label"] for head in (table or {})["columns"]), row, strict=True))


class Page(HTMLParser):
    """A page's elements and tables; a cell is the list of its lines."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes]] = []
        self.tables: list[list[list[list[str]]]] = []
        self.text: dict[str, list[str]] = {}
        self._said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append([""])
        elif tag in ("small", "br") and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self._said.append(data)
        if {"td", "th"} & set(self._open) and "unit" not in self._open:
            self.tables[-1][-1][-1][-1] += data
        for tag in self._open[-1:]:
            self.text.setdefault(tag, []).append(data)

    def words(self) -> str:
        return squeezed("".join(self._said))

    def shape(self) -> Counter[tuple[str, tuple[str, ...]]]:
        return Counter((tag, tuple(sorted(attributes))) for tag, attributes in self.elements)

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] or "" for _, found in self.elements if attribute in found]

    def bodies(self) -> list[list[list[list[str]]]]:
        return [[[[*map(squeezed, cell)] for cell in row] for row in rows[1:]] for rows in self.tables]


def markdown_page(text: str) -> Page:
    return Page(MarkdownIt("commonmark").enable("table").render(text))
