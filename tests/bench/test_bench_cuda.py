"""The benchmark of a CUDA machine, on a small scale: its parts, and what is left when it is cut off."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ablate.errors import DeviceError
from benchmarks.cuda import NETWORKS, RECIPES, Scale, bench_cuda

SMALL = Scale(images=20, side=32, parity_images=40, copied=2**16, multiplied=32, files=160, sweep=(2, 1))


@pytest.mark.cuda
@pytest.mark.slow
def test_every_part_is_measured_and_what_should_agree_agrees(tmp_path: Path) -> None:
    said: list[str] = []
    assert bench_cuda(said.append, tmp_path / "cuda.json", SMALL)
    known: dict[str, list[dict[str, Any]]] = json.loads((tmp_path / "cuda.json").read_text())
    assert list(known) == ["card", "loss", "training", "epochs", "from_files"]
    assert len(said) == sum(map(len, known.values()))
    for row in known["loss"]:
        assert row["value"] < 1e-6
        assert row["gradient"] < (1e-6 if row["dtype"] == "torch.float32" else 4e-3)
    assert len(known["training"]) == len(NETWORKS) * len(RECIPES) * 2
    for row in known["training"]:
        assert (row["engine"], row["graph_to_eager"] < 1e-3) == ("graph", True)
        if row["precision"] == "float32" and row["recipe"] == "source":
            assert row["eager_to_cpu"] < 1e-2
    assert [row["engine"] for row in known["epochs"]] == ["eager", "graph"] * len(NETWORKS) * len(RECIPES)
    assert all(row["seconds"] > 0 and row["part_of_copies"] > 0 for row in known["epochs"])
    swept = [(row["engine"], row["trials"], row["failed"]) for row in known["from_files"][1:]]
    assert swept == [("eager", 2, 0), ("graph", 2, 0)]


@pytest.mark.cuda
def test_cut_off_it_leaves_what_it_has(tmp_path: Path) -> None:
    said: list[str] = []
    assert not bench_cuda(said.append, tmp_path / "cuda.json", Scale(seconds=0, copied=8, multiplied=2))
    assert list(json.loads((tmp_path / "cuda.json").read_text())) == ["card"]
    assert "was not measured" in said[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without CUDA")
def test_without_cuda_it_says_that_it_needs_one() -> None:
    with pytest.raises(DeviceError, match="expected a CUDA device"):
        bench_cuda(print, None)
