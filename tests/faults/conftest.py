"""The quick study's module is found, and no figures are drawn."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ablate.report.content


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(ablate.report.content, "draw_figures", lambda *tables, **options: [])
    yield
    sys.modules.pop("quick", None)
