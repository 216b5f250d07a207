"""Trustworthy ablation studies of training knobs: accuracy, calibration and step time, with intervals."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.external import analyse
    from ablate.losses import LabelSmoothingCrossEntropy
    from ablate.models.weights import load_network
    from ablate.pipeline import load_tables, run, tune
    from ablate.study import Choice, Metric, Profile, Published, Range, Search, Study, load_study

    __version__: str

HOME = {
    "analyse": "external",
    "LabelSmoothingCrossEntropy": "losses",
    "load_network": "models.weights",
    **dict.fromkeys(("load_tables", "run", "tune"), "pipeline"),
    **dict.fromkeys(
        ("Choice", "Metric", "Profile", "Published", "Range", "Search", "Study", "load_study"), "study"
    ),
}
"""Where each public name is. It is imported when first asked for, so that `import ablate` is instant."""

__all__ = [
    "Choice", "LabelSmoothingCrossEntropy", "Metric", "Profile", "Published", "Range", "Search", "Study",
    "__version__", "analyse", "load_network", "load_study", "load_tables", "run", "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ablate.store.provenance import version_of

        return version_of("ablate")
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ablate.{HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
