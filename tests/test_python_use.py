"""A study run from Python: it does what the command does, and says in Python's terms what is wrong."""

import html
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_main import ablate as command

import ablate
from ablate.errors import AblateError, StudyError
from ablate.execution.progress import in_notebook
from ablate.pipeline import Run
from ablate.study import Study

pytestmark = pytest.mark.usefixtures("no_figures")

BASE = {"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.05}
STUDY = f'''"""Tiny."""
from ablate import Study
study = Study(question="?", base={BASE}, factors={{"epsilon": (0.0, 0.1)}}, seeds=2)
'''
NET = """
from torch import nn

def net(num_classes, image_size):
    {}
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def declare(**changes: Any) -> ablate.Study:
    return ablate.Study(**{"name": "tiny", "question": "?", "base": BASE, "seeds": 1, **changes})


def run(study: ablate.Study | str, **options: Any) -> Run:
    """Train in this process, with no timing pass."""
    return ablate.run(study, **{"device": "cpu", "workers": 0, "timing": False, **options})


@pytest.mark.slow
def test_python_and_the_command_do_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tiny.py").write_text(STUDY)
    settings = {"epochs": 1, "epsilon": np.array([0.0, 0.1])}
    first = run("tiny.py", settings=settings, seeds=np.int64(2))
    assert (first.ran, first.failed, first.interrupted) == (4, 0, False)
    assert "2 arms x 2 seeds = 4 trials: 0 done, 4 to run" in capsys.readouterr().out
    own = Path("tiny", "default", "variations", "epochs=1+epsilon=0.0,0.1+seeds=2")
    assert first.report == "report" / own / "index.html"
    assert first.folder == "results" / own
    assert first.page == first.report.read_text()
    words = "run tiny.py --set epochs=1 --set epsilon=0.0,0.1 --seeds 2 --device cpu"
    typed, said = f"python -m ablate {words}", command(here, *words.split(), "--no-timing").out
    assert "4 done, 0 to run" in said
    called = "ablate.run(study, settings={'epochs': 1, 'epsilon': [0.0, 0.1]}, seeds=2, device='cpu')"
    by_command = html.unescape(first.report.read_text())
    assert typed in by_command
    assert by_command.replace(typed, called) == html.unescape(first.page)
    read = ablate.load_tables("tiny")
    assert set(read) == set(first.tables)
    for name, table in read.items():
        pd.testing.assert_frame_equal(table, first.tables[name])


def test_failed_trials_are_counted_and_can_be_run_again() -> None:
    study = declare(name="<b>&x", base={**BASE, "lr": 1e30})
    first = run(study)
    assert (first.ran, first.failed) == (1, 1)
    assert repr(first).startswith(
        "<b>&x (default): 0 of 1 trials complete; 1 run just now\n"
        "1 of 1 trials have no result; the report says why; retry_failed=True runs them again\n"
    )
    assert repr(first).endswith(f"report: {first.report}")
    assert run(study, retry_failed=True).ran == 1
    shown = first._repr_html_()
    assert {*re.findall(r"<(\w+)", shown)} == {"div", "br", "iframe"}
    assert 'sandbox="allow-scripts allow-downloads"' in shown
    (page,) = map(html.unescape, re.findall('srcdoc="([^"]*)"', shown))
    assert page.replace("about:srcdoc#", "#") == first.page
    links = re.findall('<a [^>]*href="([^"]*)"', page)
    assert links
    assert all(link.startswith(("about:srcdoc#", "data:")) for link in links)


def test_a_search_that_was_stopped_has_no_report_yet() -> None:
    stopped = Run(Path("results/tiny/default"), ran=1, failed=0, interrupted=True)
    said = "tiny (default): no report yet; 1 run just now\ninterrupted: the same call goes on"
    assert (repr(stopped), stopped._repr_html_()) == (said, f"<div>{said}</div>".replace("\n", "<br>"))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"device": "gpu"}, r"device: .*'auto', 'cpu' or 'cuda', but 'gpu' \(str\) came"),
        ({}, {"timeout": 1, "workers": 0}, r"timeout: expected none where workers is 0"),
        ({}, {"seeds": 2.5}, r"^seeds: expected how many seeds, .*2.5 \(float\) came$"),
        ({}, {"wokers": 1}, r"wokers: unknown option; .*Did you mean 'workers'\?"),
        ({}, {"report": "file"}, r"file: the report cannot be written there"),
        ({"base": {**BASE, "arch": "__main__:Net"}}, {}, r"cannot import.*%%writefile.*'my_module:Net'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    here: Path, changes: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    (here / "file").touch()
    with pytest.raises(AblateError, match=message):
        ablate.run(declare(**changes), **{"device": "cpu", **arguments})
    assert not (here / "results").exists()


@pytest.mark.slow
def test_the_users_own_module_is_taken_as_it_is_now(here: Path) -> None:
    study = declare(base={**BASE, "arch": "own_net:net"})
    (here / "own_net.py").write_text(NET.format("raise ValueError('not yet')"))
    with pytest.raises(StudyError, match="not yet"):
        run(study)
    seen = set()
    for line, options in (("", {}), ("image_size = image_size + 0", {"retrain": True})):
        (here / "own_net.py").write_text(NET.format(line))
        ended = run(study, **options)
        assert (ended.ran, ended.failed) == (1, 0)
        seen |= set(ended.tables["trials"]["trial_id"])
    assert len(seen) == 2
    del sys.modules["own_net"]


def test_every_public_name_is_there() -> None:
    assert set(ablate.__all__) <= set(dir(ablate))
    assert all(getattr(ablate, name) for name in ablate.__all__)
    assert ablate.Study is Study
    with pytest.raises(AttributeError, match="'ablate' has no attribute 'Studdy'"):
        _ = ablate.Studdy
    assert not in_notebook()
