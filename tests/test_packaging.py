"""What is built of the project: the wheel alone runs a study by name; the gallery is what the records say."""

import runpy
import shutil
import sys
from pathlib import Path
from subprocess import check_output

import pytest

import ablate

ROOT = Path(ablate.__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_runs_a_study_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    source, installed = tmp_path / "source", tmp_path / "site-packages"
    for folder in ("ablate", "studies", "docs", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(path, source)
    build = [sys.executable, "-W", "error", "-c"]
    check_output([*build, "from setuptools import build_meta as b; b.build_sdist('..')"], cwd=source)
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path)
    unpacked = next(tmp_path.glob("ablate-*[0-9]"))
    check_output([*build, "from setuptools import build_meta as b; b.build_wheel('..')"], cwd=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, installed, "zip")
    assert f"\nversion: {wheel.name.split('-')[1]}\n" in (unpacked / "CITATION.cff").read_text()
    wanted = {path.relative_to(source) for path in (source / "ablate").rglob("*") if path.suffix}
    wanted |= {"ablate" / path.relative_to(source) for path in (source / "studies").rglob("*.py")}
    assert {
        path.relative_to(installed) for path in (installed / "ablate").rglob("*") if path.suffix
    } == wanted
    monkeypatch.setenv("PYTHONPATH", str(installed))
    small = ["--profile", "quick", "--seeds", "1", "--set", "epochs=1", "--set", "epsilon=0.0"]
    run = [sys.executable, "-m", "ablate", "run", "eps_sweep", *small, "--device", "cpu", "--no-timing"]
    assert "1 trials run" in check_output(run, cwd=tmp_path, text=True)
    assert len(list((tmp_path / "results/eps_sweep/quick/records").glob("*.json"))) == 1


@pytest.mark.slow
def test_the_gallery_is_what_the_records_say() -> None:
    page = runpy.run_path(str(ROOT / "docs/gallery.py"))["gallery"]()
    assert page == (ROOT / "docs/gallery.md").read_text(encoding="utf-8"), "run python docs/gallery.py"
    assert page.count("\n## ") == len(list((ROOT / "results/reference").glob("*/*/study.json")))
