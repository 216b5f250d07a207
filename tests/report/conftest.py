"""Rendered reports of the studies that the tests look at, each made once."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from report_cases import CASES, Rendered, make, report_of

from ablate.store.results import ResultsFolder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rendered]:
    """The report of one of `CASES`, made when first asked for; with its figures where `figures` is true."""

    @functools.cache
    def results(case: str) -> ResultsFolder:
        return make(tmp_path_factory.mktemp(case), **CASES[case]())

    @functools.cache
    def get(case: str, *, figures: bool = False) -> Rendered:
        name = "with_figures" if figures else "report"
        return report_of(results(case), results(case).root.parent / name, figures=figures)

    return get
