"""Studies in a real Jupyter kernel: progress, interruption, the report in the page; docs/example.ipynb."""

import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient
from test_main import processes_with

EXAMPLE = Path(__file__).parent.parent / "docs" / "example.ipynb"
BASE = {"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "lr": 0.05}
OWN = """%%writefile own_parts.py
import torch
from torch import nn

def net(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))

def loss(logits, target, *, epsilon, reduction):
    return nn.functional.cross_entropy(logits, target, label_smoothing=epsilon, reduction=reduction)
"""


@dataclass
class Executed:
    """What a cell did: how it ended, its messages of each kind, and its text on stdout and stderr."""

    reply: dict[str, Any]
    displays: list[dict[str, Any]]
    updates: list[dict[str, Any]]
    text: str
    seconds: float

    @property
    def shown(self) -> str:
        """The one live output as it was left."""
        (first,) = self.displays
        last = self.updates[-1] if self.updates else first
        assert last["transient"] == first["transient"]
        return str(last["data"]["text/html"])


Execute = Callable[..., Executed]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KernelManager, Any, str]]:
    """A kernel, its client, and what marks its processes."""
    folder = str(tmp_path_factory.mktemp("kernel"))
    own = {"ABLATE_CACHE": f"{folder}/cache", "CUDA_VISIBLE_DEVICES": "", "ABLATE_TEST_MARK": folder}
    manager, client = start_new_kernel(kernel_name="python3", cwd=folder, env={**os.environ, **own})
    yield manager, client, f"ABLATE_TEST_MARK={folder}"
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def execute(kernel: tuple[KernelManager, Any, str]) -> Execute:
    _, client, _ = kernel

    def run(code: str, watch: Callable[[str], None] = lambda shown: None) -> Executed:
        kinds: dict[str, list[dict[str, Any]]] = {"display_data": [], "update_display_data": []}
        text = ""

        def hear(message: dict[str, Any]) -> None:
            nonlocal text
            kind, content = message["msg_type"], message["content"]
            if kind in kinds:
                kinds[kind].append(content)
                watch(content["data"].get("text/html", ""))
            text += content["text"] if kind == "stream" else ""
            text += content["data"]["text/plain"] if kind == "execute_result" else ""

        begun = time.monotonic()
        reply = client.execute_interactive(code, output_hook=hear, timeout=300, allow_stdin=False)
        displays, updates = kinds.values()
        return Executed(reply["content"], displays, updates, text, time.monotonic() - begun)

    run(f"import ablate\nBASE = {BASE}\nabout = dict(question='?', seeds=2, base=BASE)")
    return run


@pytest.mark.slow
def test_a_run_is_one_output_and_finds_the_code_beside_the_notebook(execute: Execute) -> None:
    assert execute(OWN).reply["status"] == "ok"
    ran = execute(
        "own = {**BASE, 'arch': 'own_parts:net', 'loss': 'own_parts:loss'}\n"
        "study = ablate.Study(name='own', **about | {'base': own})\n"
        "run = ablate.run(study, settings={'epsilon': [0, .2]}, timing=False)\n"
        "print(run.ran, run.failed, run.interrupted)"
    )
    assert (ran.reply["status"], ran.text) == ("ok", "4 0 False\n")
    assert "2 arms x 2 seeds = 4 trials: 0 done, 4 to run" in ran.shown
    assert "4 of 4 trials ended in" in ran.shown
    assert ran.shown.count("accuracy") == 4
    assert "━" not in ran.shown
    assert any("━" in one["data"]["text/html"] for one in ran.updates)


VIEW = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import test_progress
from ablate.execution.progress import NotebookView
from ablate.execution.trial import Heartbeat
with NotebookView() as view:
    test_progress.play(view, [Heartbeat(n / 2000, 1) for n in range(2000)])
"""


def test_progress_is_escaped_and_drawn_at_most_four_times_a_second(execute: Execute) -> None:
    view = execute(VIEW)
    assert view.reply["status"] == "ok", view.reply
    drawn = [one["data"]["text/html"] for one in [*view.displays, *view.updates]]
    assert set(re.findall(r"<(\w+)", "".join(drawn))) == {"pre", "span", "details", "summary"}
    told = "arch=[red]&lt;0&amp;&gt;, seed 0: killed: by &lt;p&gt;SIGKILL"
    for words in ("&lt;a&gt;", "&lt;i&gt;tiny: no &lt;u&gt;CUDA", told):
        assert words in view.shown
    assert view.shown.index(told) < view.shown.index("2 of 2 trials ended in")
    assert "[red]<0&>" in view.updates[-1]["data"]["text/plain"]
    assert len(drawn) <= 4 * (view.seconds + 1) + 1


@pytest.mark.slow
def test_interrupting_the_kernel_ends_with_a_partial_report_and_no_worker(
    execute: Execute, kernel: tuple[KernelManager, Any, str]
) -> None:
    manager, _, mark = kernel
    interrupted: list[str] = []

    def interrupt(shown: str) -> None:
        if "[1/4]" in shown and not interrupted:
            interrupted.append(shown)
            manager.interrupt_kernel()

    cell = (
        "study = ablate.Study(name='long', **about)\n"
        "run = ablate.run(study, settings={'epochs': [1, 3000]}, workers=1)\n"
        "print(run.interrupted, run.ran, len(run.tables['trials']), run.report.exists())"
    )
    stopped = execute(cell, interrupt)
    assert (stopped.reply["status"], stopped.text) == ("ok", "True 1 4 True\n")
    assert "1 of 4 trials ended, then it was stopped" in stopped.shown
    assert "interrupted: the report is partial" in execute("run").text
    assert len(processes_with(mark.encode())) == 1, "the kernel alone"


@pytest.mark.slow
@pytest.mark.browser
def test_the_report_works_inside_the_notebook(execute: Execute, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
    cell = (
        "study = ablate.Study(name='framed', **about)\n"
        "run = ablate.run(study, settings={'epsilon': [0, .2]}, workers=0, timing=False)\n"
        "from IPython.display import display\ndisplay(run)"
    )
    page = tmp_path / "page.html"
    frame = execute(cell).displays[-1]["data"]["text/html"]
    page.write_text(f"<!doctype html><meta charset=utf-8><title>A notebook</title>{frame}")
    chromium = os.environ.get("ABLATE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium starts here: {error}")
        _use_the_frame(browser.new_page(), page.as_uri())


def _use_the_frame(page: Any, address: str) -> None:
    """The frame's style, script, images and links work, and the console stays silent."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    assert page.locator("iframe").bounding_box()["height"] > 400
    frame = page.frame_locator("iframe")
    links = frame.get_by_role("navigation").get_by_role("link")
    for place in range(links.count()):
        links.nth(place).click()
        target = links.nth(place).get_attribute("href").removeprefix("about:srcdoc")
        assert frame.locator(target).evaluate("section => section.matches(':target')")
    images = frame.locator("body").evaluate("() => [...document.images].map(one => one.naturalWidth)")
    assert images
    assert all(images)
    head = frame.locator("#arms th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    frame.locator("details:has(a[download])").evaluate_all("all => all.forEach(one => { one.open = true })")
    with page.expect_download() as download:
        frame.locator("a[download]").first.click()
    assert download.value.suggested_filename.endswith((".csv", ".svg"))
    assert page.url == address
    assert said == []


def outputs(notebook: Any) -> list[list[dict[str, Any]]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def structure(output: dict[str, Any]) -> tuple[Any, ...]:
    """What of an output is the same on every machine: its kinds, a table's labels, how many trials ran."""
    data = output.get("data", {})
    page = data.get("text/html", "")
    labels = "a report" if "<iframe" in page else tuple(re.findall(r"<th[^>]*>\s*([^<]*)", page))
    counts = tuple(re.findall(r"\d+ arms x .* to run|\d+ of \d+ trials \w+", data.get("text/plain", "")))
    return output["output_type"], tuple(sorted(data)), labels, counts


@pytest.mark.soak
def test_the_example_runs_to_the_outputs_it_is_stored_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "docs").mkdir()
    stored = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    fresh = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    where = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=where).execute()
    was, now = ([[structure(one) for one in cell] for cell in outputs(book)] for book in (stored, fresh))
    assert was == now
    assert (tmp_path / "report" / "example" / "default" / "index.html").is_file()
    assert list(tmp_path.glob("docs/*")) == []


def test_the_example_is_stored_as_it_was_run_trains_only_new_trials_and_names_no_machine() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text) < 2_000_000
    notebook = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [one for cell in cells for one in cell.outputs if one.output_type in ("error", "stream")]
    patterns = [re.escape(str(EXAMPLE.parent.parent)), rf"\b{re.escape(socket.gethostname())}\b"]
    patterns += [r"(?<![\w./+])/(home|Users|root|tmp|work|opt|usr|mnt|var)/", "file://", r"\b127\.0\.0\.1"]
    assert re.findall("|".join(patterns), text) == []
    shown = [structure(one)[3] for cell in outputs(notebook) for one in cell]
    runs = re.findall(r"\d+ done, \d+ to run", str(shown))
    assert runs == ["0 done, 12 to run", "12 done, 4 to run"]
