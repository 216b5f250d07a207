"""What comes in by names and goes out by streams and files: nothing lands elsewhere, and no trial is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import Recorded, counts
from test_main import HERE, STUDY, ablate, files, folder

from ablate.errors import StudyError
from ablate.store.records import read_records
from ablate.study.fields import folder_name
from ablate.study.study import Study

EVIL = ["../x", "/x", "..", ".x", "a/b", "a\\b", "a\0", "a\nb", "\x1b]0;x", "\udcff", "x" * 201, "ε" * 101]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    both: list[dict[str, Any]] = [{"name": name}, {"profiles": {name: {}}}]
    for declared in both:
        with pytest.raises(StudyError, match="expected a plain folder name"):
            Study(question="?", base={"data": "digits", "image_size": 8}, **declared)


@given(st.text(st.sampled_from("./\\\0aε \x1b\u202e")))
def test_a_plain_name_is_one_part_of_a_path_that_shows_as_it_is(name: str) -> None:
    try:
        folder_name(name)
    except ValueError:
        return
    assert Path("results", name).resolve().parent == Path("results").resolve()
    assert name == Path(name).name
    assert name.isprintable()


@pytest.mark.parametrize(("part", "name"), [("study", "../../out"), ("study", "/OUT"), ("profile", "../x")])
def test_a_plan_of_somebody_else_writes_nowhere(tmp_path: Path, part: str, name: str) -> None:
    path = Recorded(tmp_path / "results" / "tiny" / "quick", counts(e0=[600, 610])).folder.plan
    name, plan = name.replace("/OUT", str(tmp_path / "out")), json.loads(path.read_bytes())
    held = plan.get("content", plan)
    held.pop("digest", plan.pop("digest", None))  # as who altered it would
    (held["study"] if part == "study" else held).update({"name" if part == "study" else "profile": name})
    path.write_text(json.dumps(held))
    before = files(tmp_path)
    for words in (["report", "tiny"], ["publish", "tiny", "--as", "x"], ["check", "tiny"]):
        ended = ablate(tmp_path, *words)
        assert (ended.status, ended.err[:7], ended.out) == (1, "error: ", "")
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a_stream_that_goes_costs_no_trial(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(STUDY)
    environment = {**os.environ, "ABLATE_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    reader, writer = os.pipe()
    os.close(reader)  # as by `head`, which has seen enough
    full = os.open("/dev/full", os.O_WRONLY)
    for out, words, status in (full, ["run", "tiny.py", *HERE], 0), (writer, ["status", "tiny"], 1):
        command: Any = [sys.executable, "-m", "ablate", *words]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stderr.count(b"nothing more is shown (")) == (status, 1)
        assert b"Traceback" not in ended.stderr
    assert {record.status for record in read_records(folder(tmp_path)).values()} == {"complete"}
    page = tmp_path / "report" / "tiny" / "quick" / "index.html"
    page.unlink()
    ablate_it: Any = [sys.executable, "-m", "ablate"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *ablate_it, "run", "tiny.py", "--no-timing"]
    assert subprocess.run(closed, cwd=tmp_path, env=environment).returncode == 0
    assert page.is_file()
    ascii_alone = environment | {"PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([*ablate_it, "compare", "tiny", "tiny"], cwd=tmp_path, env=ascii_alone, stdout=-1)
    assert (shown.returncode, b"\\u2013" in shown.stdout) == (0, True)


@pytest.mark.slow
def test_a_report_needs_no_table_to_be_written(tmp_path: Path) -> None:
    root = Recorded(tmp_path / "results" / "tiny" / "quick", counts(e0=[600, 610], e1=[500, 520])).folder.root
    page = tmp_path / "report" / "tiny" / "quick"
    assert ablate(tmp_path, "report", "tiny").status == 0
    usual = {name: (page / name).read_bytes() for name in ("index.html", "report.md", "report.json")}
    shutil.rmtree(page)
    for name in ("trials", "effects"):
        (root / f"{name}.csv").unlink()
        (root / f"{name}.csv").mkdir()  # which root cannot overwrite either
    (page / "figures").mkdir(parents=True)
    (page / "figures" / "accuracy-dark.svg").mkdir()
    ended = ablate(tmp_path, "report", "tiny")
    assert ended.status == 0, ended.err
    assert ended.err.count("cannot be written (Is a directory)") >= 2
    assert {name: (page / name).read_bytes() for name in usual} == usual
