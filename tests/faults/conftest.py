"""The quick study's module is found, and no figures are drawn."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, no_figures: None) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop("quick", None)
