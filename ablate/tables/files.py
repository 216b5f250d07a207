"""Tables as CSV files, and back to the last bit."""

import contextlib
import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ablate.errors import RecordError
from ablate.store.results import (
    ResultsFolder,
    is_sealed,
    read_sealed,
    readable,
    write_atomically,
    write_sealed,
)
from ablate.study.fields import Frozen
from ablate.tables.columns import COLUMNS, FIRST, RETIRED, Kind, columns_of, is_argument
from ablate.terminal import optional

Tables = dict[str, pd.DataFrame]
REMEDY = "write it again with `python -m ablate report`, or restore what was published"
DTYPES = {"text": "string", "integer": "Int64", "number": "float64", "boolean": "boolean"}


class Digests(Frozen):
    """The tables of a folder, by name their SHA-256."""

    digests: dict[str, str]


def frame(table: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with exactly the table's columns, in order and with their types."""
    rows = list(rows)
    named = dict.fromkeys(name for row in rows for name in row if is_argument(name))
    cells = {
        name: pd.Series([str(row.get(name, "")) or None for row in rows], dtype="string") for name in named
    }
    columns = columns_of(table, {name: texts.dropna() for name, texts in cells.items()})
    types = {column.name: DTYPES[column.kind] for column in columns}
    parsed = {c.name: _parse(cells[c.name], c.kind) for c in columns if c.name in cells}
    return pd.DataFrame(rows, columns=list(types)).assign(**parsed).astype(types)


def write_tables(folder: ResultsFolder, tables: Tables) -> None:
    """Write each table to <name>.csv, and the digests; one that cannot be is read from `folder` itself."""
    written: dict[str, str] = {}
    for name, data in tables.items():
        texts: Any = data.select_dtypes("string")
        safe = data.assign(**{text: data[text].map(inert, na_action="ignore") for text in texts})
        folder.unwritten[f"{name}.csv"] = content = safe.to_csv(index=False).encode()
        with optional():
            write_atomically(folder.root / f"{name}.csv", content)
            del folder.unwritten[f"{name}.csv"]
            written[name] = hashlib.sha256(content).hexdigest()
    others: dict[str, str] = {}
    with contextlib.suppress(RecordError):  # damaged, so the others are not vouched for
        others = _digests(folder)
        if not others and not is_sealed(folder.plan):  # of an earlier version
            csvs = folder.root.glob("*.csv")
            others = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in csvs}
    with optional():
        write_sealed(folder.tables, Digests(digests=others | written))


def inert(text: str) -> str:
    """A text that a spreadsheet does not read as a formula: a leading apostrophe keeps it from that."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "'")) else text


def read_tables(folder: ResultsFolder, *, names: Iterable[str] = tuple(COLUMNS)) -> Tables:
    """The CSV files of a folder, of an earlier version too; a RecordError names one missing or damaged."""
    digests = _digests(folder)
    if not digests and is_sealed(folder.plan) and not folder.unwritten:
        raise RecordError(f"{folder.tables}: is missing, which vouches for the tables; {REMEDY}")
    return {name: _read_table(folder, name, digests) for name in names}


def _digests(folder: ResultsFolder) -> dict[str, str]:
    kept = read_sealed(Digests, folder.tables, REMEDY)
    return kept.digests if kept else {}


FORMER_EFFECTS = {"arm": "term", "baseline": "against", "n_pairs": "n"}  # while it held arms alone


def _read_table(folder: ResultsFolder, table: str, digests: Mapping[str, str]) -> pd.DataFrame:
    path = folder.root / f"{table}.csv"
    raw = folder.unwritten.get(path.name)
    if raw is None and not path.exists():
        if table not in FIRST and table not in digests:
            return frame(table, [])
        raise RecordError(f"{path}: the table is missing; {REMEDY}")
    with readable(path, REMEDY) if raw is None else contextlib.nullcontext():
        if raw is None:
            raw = path.read_bytes()
            if digests and hashlib.sha256(raw).hexdigest() != digests.get(table):
                raise ValueError("it does not match its digest")
            if not raw.endswith(b"\n"):
                raise ValueError("the table is cut off")
        data = pd.read_csv(io.BytesIO(raw), dtype="string", keep_default_na=False, na_values=[""])
        if table == "effects" and "kind" not in data:
            data = data.rename(columns=FORMER_EFFECTS).assign(kind="arm")
        arguments = filter(is_argument, map(str, data))
        columns = columns_of(table, {name: data[name].dropna() for name in arguments})
        if not set(data.columns) <= {*(column.name for column in columns), *RETIRED.get(table, ())}:
            raise RecordError(f"{path}: the table has other columns than this version of ablate reads")
        # An earlier version wrote fewer columns, but the same ones of these.
        data = data.reindex(columns=[column.name for column in columns]).astype("string")
        return data.assign(**{one.name: _parse(data[one.name], one.kind) for one in columns})


def _parse(cells: "pd.Series[str]", kind: Kind) -> "pd.Series[Any]":
    if kind == "text":
        return cells.map(lambda text: text.removeprefix("'"), na_action="ignore").astype("string")
    if kind == "boolean":
        return cells.map({"True": True, "False": False}).astype("boolean")
    if kind == "integer":
        return pd.to_numeric(cells).astype("Int64")
    # Python's float, because pandas' own parser can be off by the last bit.
    return cells.fillna("nan").map(float).astype("float64")
