"""What `doctor` finds on this machine, and on ones that are broken in one place."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ablate.doctor import Finding, examine, show_findings
from ablate.train.device import cpu_has_bfloat16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))


def examined() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def test_a_sound_machine_has_nothing_to_mend(tmp_path: Path) -> None:
    findings = examined()
    assert [finding for finding in findings.values() if finding.remedy] == []
    precision = "bfloat16" if cpu_has_bfloat16() else "float32"
    for name, part in (
        ("packages", f"torch {torch.__version__.partition('+')[0]}"),
        ("python", sys.executable),
        ("bfloat16 on cpu", f"so precision=auto is {precision}"),
        ("cache", f"{tmp_path / 'cache'}, holds 0.00 GB"),
        ("profile", f"profile {'full' if torch.cuda.is_available() else 'quick'} runs"),
    ):
        assert part in findings[name].value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_why_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = "none: " if torch.version.cuda else "none: Torch not compiled with CUDA"
    for visible, reason in (("0", compiled), ("-1", "none: CUDA_VISIBLE_DEVICES hides every GPU")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert examined()["CUDA"].value.startswith(reason)


@pytest.mark.cuda
def test_each_gpu_is_named_with_its_memory() -> None:
    assert torch.cuda.get_device_name(0) in examined()["GPU 0"].value
    assert "GiB" in examined()["GPU 0"].value


def test_a_cache_that_cannot_be_used_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    # not even root can write in /proc
    for folder, fault in ((tmp_path / "file", "is not a folder"), ("/proc/cache", "cannot be written (")):
        monkeypatch.setenv("ABLATE_CACHE", str(folder))
        assert fault in examined()["cache"].value
        assert "ABLATE_CACHE" in examined()["cache"].remedy


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["no-such-thing>=1", "numpy>=999", "numpy>=1", "none-such; extra == 'test'"]
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    assert [finding.value for finding in examine() if finding.name == "package"] == [
        "expected no-such-thing>=1, but its version here is unknown",
        f"expected numpy>=999, but its version here is {metadata.version('numpy')}",
    ]


def test_one_fault_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise OSError("libsomething.so: cannot open shared object file")

    monkeypatch.setattr("ablate.execution.driver.usable_cores", broken)
    findings = examined()
    assert "libsomething.so" in findings["devices"].value
    assert findings["devices"].remedy
    assert findings["cache"].remedy == ""
    assert "profile" in findings


def test_what_is_broken_is_listed_with_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    fine, full = Finding("CPU", "fine"), Finding("cache", "full", "make room")
    assert not show_findings(Console(width=40), [fine, full])
    lines = ["what   found", "CPU    fine", "cache  full", "broken: cache: make room"]
    assert capsys.readouterr().out.splitlines() == lines
    assert show_findings(Console(width=40), [fine])
    assert capsys.readouterr().out.endswith("nothing is broken\n")
