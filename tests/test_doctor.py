"""What `doctor` finds on this machine, and on ones that are broken in one place."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ablate.doctor import Finding, examine, show_findings
from ablate.train import cpu_has_bfloat16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))


def examined() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def test_a_sound_machine_has_nothing_to_mend(tmp_path: Path) -> None:
    findings = examined()
    assert [finding for finding in findings.values() if finding.remedy] == []
    assert f"torch {torch.__version__.partition('+')[0]}" in findings["packages"].value
    assert sys.executable in findings["python"].value
    precision = "bfloat16" if cpu_has_bfloat16() else "float32"
    assert f"so precision=auto is {precision}" in findings["bfloat16 on cpu"].value
    assert str(tmp_path / "cache") in findings["cache"].value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_why_cuda_is_not_seen_is_said() -> None:
    assert examined()["CUDA"].value.startswith("none: ")
    assert "profile quick runs" in examined()["profile"].value


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize(
    ("version", "visible", "reason"),
    [
        (None, None, "is built without CUDA"),
        ("13.0", "", "CUDA_VISIBLE_DEVICES hides every GPU"),
        ("13.0", "-1", "CUDA_VISIBLE_DEVICES hides every GPU"),
    ],
)
def test_reasons_for_no_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str | None, visible: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert reason in examined()["CUDA"].value


@pytest.mark.cuda
def test_each_gpu_is_named_with_its_memory() -> None:
    assert torch.cuda.get_device_name(0) in examined()["GPU 0"].value
    assert "GiB" in examined()["GPU 0"].value
    assert "profile full runs" in examined()["profile"].value


def test_a_cache_that_is_a_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert "is not a folder" in examined()["cache"].value
    assert "ABLATE_CACHE" in examined()["cache"].remedy


def test_a_cache_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", "/proc/cache")  # where not even root can write
    assert "cannot be written (" in examined()["cache"].value
    assert "ABLATE_CACHE" in examined()["cache"].remedy


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        (["no-such-thing>=1"], "no-such-thing is not installed (no-such-thing>=1 is needed)"),
        (["numpy>=999"], f"numpy {metadata.version('numpy')} is installed, but numpy>=999 is needed"),
        (["no-such-thing; extra == 'test'", "numpy>=1"], None),
    ],
)
def test_packages_that_are_missing_or_too_old_are_named(
    monkeypatch: pytest.MonkeyPatch, declared: list[str], fault: str | None
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    assert [finding.value for finding in examine() if finding.name == "package"] == ([fault] if fault else [])


def test_one_fault_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise OSError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr("ablate.execution.driver.usable_cores", broken)
    findings = examined()
    assert "libsomething.so" in findings["processor"].value
    assert findings["processor"].remedy
    assert findings["cache"].remedy == ""
    assert "profile" in findings


def test_what_is_broken_is_listed_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert not show_findings(
        Console(width=40), [Finding("CPU", "fine"), Finding("cache", "full", "make room")]
    )
    lines = ["what   found", "CPU    fine", "cache  full", "broken: cache: make room"]
    assert capsys.readouterr().out.splitlines() == lines
    assert show_findings(Console(width=40), [Finding("CPU", "fine")])
    assert capsys.readouterr().out.endswith("all that a run needs is there\n")
