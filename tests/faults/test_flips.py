"""A flipped byte in any file of a results folder: no number changes in silence, and no gate opens."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from quick_study import FULL, folder_of, run, tables_of

from ablate.errors import AblateError
from ablate.gate.check import check_study
from ablate.gate.compare import read_run
from ablate.pipeline import write_results
from ablate.store.records import publish_results
from ablate.store.results import ResultsFolder


def read(folder: ResultsFolder, report: Path) -> tuple[dict[str, str], Any, bool]:
    """Tables, what report.json says apart from how the study was run, and whether a gate passes."""
    page = write_results(folder, report)
    said = json.loads((page.parent / "report.json").read_text())
    passes = check_study(read_run(folder), ["accuracy < 1%", "missing > 0"]).passes
    return tables_of(folder.root), said, passes


@pytest.mark.usefixtures("quick")
@pytest.mark.soak
@pytest.mark.parametrize("published", [False, True])
def test_no_flipped_byte_changes_a_number_in_silence(tmp_path: Path, published: bool) -> None:
    run(tmp_path)
    folder = folder_of(tmp_path)
    if published:
        folder = publish_results(folder, tmp_path / "published" / "quick" / "default", predictions=False)
    whole = read(folder, tmp_path / "whole")
    assert whole[2]
    files = sorted(path for path in folder.root.rglob("*") if path.is_file() and path.stat().st_size)
    rng, told, wrong = random.Random(0), 0, []
    for number in range(max(100, 2 * len(files)) if FULL else 2 * len(files)):
        path = files[number % len(files)]
        here = ResultsFolder(tmp_path / str(number) / "quick" / "default")
        shutil.copytree(folder.root, here.root)
        content = bytearray(path.read_bytes())
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        content[place] ^= 1 << bit
        (here.root / path.relative_to(folder.root)).write_bytes(content)
        try:
            tables, said, passes = read(here, tmp_path / str(number) / "report")
        except AblateError:
            told += 1
        else:
            shown = "unreadable" in tables["trials.csv"] and not passes
            told += shown
            if not shown and (tables, said, passes) != whole:
                wrong.append((str(path.relative_to(folder.root)), place, bit))
        shutil.rmtree(here.root)
    assert not wrong
    assert told
