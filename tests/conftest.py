"""Every test trains on one thread and leaves torch's global settings as found; which run on CUDA.

Properties are tried on 15 examples each, or on as many as $ABLATE_EXAMPLES says.
"""

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("ablate", max_examples=int(os.environ.get("ABLATE_EXAMPLES", "15")), deadline=None)
settings.load_profile("ablate")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


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
