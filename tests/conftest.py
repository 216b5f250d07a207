"""Every test trains on one thread, with a cache that goes away, and leaves torch's settings; what CUDA runs.

Properties are tried on the same 15 examples each time, or on as many others as $ABLATE_EXAMPLES says.
"""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from ablate.tables.columns import declare

asked = os.environ.get("ABLATE_EXAMPLES")
settings.register_profile("ablate", max_examples=int(asked or 15), derandomize=not asked, deadline=None)
settings.load_profile("ablate")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def _no_metrics_declared() -> None:
    declare()


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """For modules whose reports need none: to draw them takes longer than the rest of a small study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablate.report.content.draw_figures", lambda *tables, **options: [])
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, and what needs a real one on the pretended card."""
    how = "no CUDA device; on the pretended card: PYTHONPATH=$PWD/tests/pretended python -m pytest -m cuda"
    for item in items:
        mark = item.get_closest_marker("cuda")
        if mark is None:
            continue
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason=how))
        elif "only_real" in mark.kwargs and "pretend" in sys.modules:
            item.add_marker(pytest.mark.skip(reason=mark.kwargs["only_real"]))
