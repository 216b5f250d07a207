"""What is built of the project: the wheel alone runs a study by name; the gallery is what the records say."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ablate
from ablate.errors import StudyError
from ablate.study.study import load_study

ROOT = Path(ablate.__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_runs_a_study_by_name_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, installed = tmp_path / "source", tmp_path / "site-packages"
    for folder in ("ablate", "studies", "docs", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(path, source)

    def python(*arguments: str, here: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.check_output([sys.executable, *arguments], cwd=here, env=environment, text=True)

    build = "from setuptools import build_meta as build; build.build_{}('{}')"
    python("-W", "error", "-c", build.format("sdist", tmp_path), here=source)
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    python("-W", "error", "-c", build.format("wheel", tmp_path), here=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    assert f"\nversion: {wheel.name.split('-')[1]}\n" in (unpacked / "CITATION.cff").read_text()
    shutil.unpack_archive(wheel, installed, "zip")
    found = [path.relative_to(installed) for path in installed.rglob("*")]
    names = [str(path) for path in found if path.suffix and ".dist-info" not in str(path)]
    files = [
        path.relative_to(source) for part in ("ablate", "studies") for path in (source / part).rglob("*")
    ]
    expected = [
        str(Path("ablate", path) if path.parts[0] == "studies" else path) for path in files if path.suffix
    ]
    assert sorted(names) == sorted(expected)
    small = ["--profile", "quick", "--seeds", "1", "--set", "epochs=1", "--set", "epsilon=0.0"]
    ran = python("-m", "ablate", "run", "eps_sweep", *small, "--workers", "0", "--no-timing", here=tmp_path)
    assert "1 trials run" in ran
    assert len(list((tmp_path / "results/eps_sweep/quick/records").glob("*.json"))) == 1


def test_a_file_of_a_study_s_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_study("eps_sweep").question.startswith("What does the label smoothing ε do")
    Path("eps_sweep.py").write_text((ROOT / "studies/eps_sweep.py").read_text().replace("What does", "Does"))
    assert load_study("eps_sweep").question == "Does the label smoothing ε do to accuracy and calibration?"
    with pytest.raises(StudyError, match=r"comes with ablate: architectures, eps_sweep, .*mean 'eps_tune'\?"):
        load_study("eps_tun")


@pytest.mark.slow
def test_the_gallery_is_what_the_records_say_and_its_links_lead_somewhere() -> None:
    page = runpy.run_path(str(ROOT / "docs/gallery.py"))["gallery"]()
    assert page == (ROOT / "docs/gallery.md").read_text(encoding="utf-8"), "run python docs/gallery.py"
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) == 5 * len(list((ROOT / "results/reference").glob("*/*/study.json")))
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
