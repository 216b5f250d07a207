import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.data import Dataset, open_dataset, prepare
from ablate.data.dataset import array_digest
from ablate.data.noise import ListedNoise, symmetric_noise
from ablate.data.noise_list import COLUMNS, NoiseList, read_noise, state
from ablate.data.source import Part
from ablate.errors import DataError

NAMES = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
FRACTIONS = st.floats(0, 1, exclude_max=True)


def true_labels(names: list[str], num_classes: int) -> np.ndarray:
    return np.arange(len(names), dtype=np.int64) % num_classes


# ---- drawn noise


@given(NAMES, st.integers(2, 7), FRACTIONS)
@settings(max_examples=60, deadline=None)
def test_so_many_labels_are_wrong_and_are_classes(
    names: list[str], num_classes: int, fraction: float
) -> None:
    labels = true_labels(names, num_classes)
    before = labels.copy()
    noisy = symmetric_noise(labels, names, num_classes, fraction)
    assert noisy.dtype == np.int64
    assert (noisy != labels).sum() == round(fraction * len(names))
    assert noisy.min() >= 0
    assert noisy.max() < num_classes
    np.testing.assert_array_equal(labels, before)
    assert not np.shares_memory(noisy, labels)


@given(NAMES, st.integers(2, 7), FRACTIONS, FRACTIONS)
@settings(max_examples=60, deadline=None)
def test_wrong_labels_stay_as_the_fraction_grows(
    names: list[str], num_classes: int, one: float, other: float
) -> None:
    labels = true_labels(names, num_classes)
    few, many = (symmetric_noise(labels, names, num_classes, f) for f in sorted((one, other)))
    wrong = few != labels
    np.testing.assert_array_equal(many[wrong], few[wrong])


@given(NAMES, FRACTIONS, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_images_is_no_matter(names: list[str], fraction: float, random: Any) -> None:
    order = random.sample(range(len(names)), len(names))
    labels = true_labels(names, 3)
    noisy = symmetric_noise(labels, names, 3, fraction)
    moved = symmetric_noise(labels[order], [names[row] for row in order], 3, fraction)
    np.testing.assert_array_equal(moved, noisy[order])


def test_the_wrong_classes_and_the_chosen_images_are_even() -> None:
    names = [f"train/{index}.png" for index in range(20_000)]
    labels = true_labels(names, 5)
    noisy = symmetric_noise(labels, names, 5, 0.4)
    pairs = np.zeros((5, 5))
    np.add.at(pairs, (labels, noisy), 1)
    wrong = pairs[~np.eye(5, dtype=bool)]
    assert stats.chisquare(wrong).pvalue > 1e-3
    assert wrong.sum() == 8000


@pytest.mark.parametrize(("num_classes", "fraction"), [(1, 0.5), (0, 0.0), (3, -0.1), (3, 1.1), (3, np.nan)])
def test_arguments_of_the_function_are_checked(num_classes: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="expected 2 or more classes"):
        symmetric_noise(np.zeros(1, np.int64), ["a"], num_classes, fraction)


# ---- of a dataset


@pytest.fixture
def digits(tmp_path: Path) -> Dataset:
    return prepare("digits", image_size=8, cache_dir=tmp_path)


def test_noise_of_a_dataset_leaves_everything_else_alone(digits: Dataset) -> None:
    truth, reported = digits.train.labels.copy(), digits.valid.labels.copy()
    noisy = digits.noisy_train_labels(0.3)
    assert (noisy != truth).sum() == 180
    noisy[:] = 0  # a caller's own copy
    np.testing.assert_array_equal(digits.train.labels, truth)
    np.testing.assert_array_equal(digits.valid.labels, reported)
    np.testing.assert_array_equal(digits.noisy_train_labels(0), truth)
    again = open_dataset(digits.folder)
    np.testing.assert_array_equal(again.noisy_train_labels(0.3), digits.noisy_train_labels(0.3))
    assert again.fingerprint == digits.fingerprint


def test_drawn_noise_never_changes(digits: Dataset) -> None:
    expected = "3710d487e5cec3c1bb86abefab09b8f6801f45f68600e472540c621efd4b8897"
    assert array_digest(digits.noisy_train_labels(0.2)) == expected


def test_noise_of_a_folder_follows_its_names_alone(image_tree: Callable[..., Path], tmp_path: Path) -> None:
    one, other = (
        prepare(f"folder:{image_tree(name)}", image_size=8, cache_dir=tmp_path / "cache")
        for name in ("here", "there/too")
    )
    noisy = one.noisy_train_labels(0.6)
    assert (noisy != one.train.labels).sum() == 3
    np.testing.assert_array_equal(noisy, other.noisy_train_labels(0.6))


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 2, np.nan, np.inf, True, "0.1", None])
def test_what_is_not_a_fraction_is_refused(digits: Dataset, fraction: Any) -> None:
    with pytest.raises(DataError, match=r"^label_noise of digits: expected 0 up to, and not including, 1"):
        digits.noisy_train_labels(fraction)


def test_numbers_of_numpy_are_fractions(digits: Dataset) -> None:
    expected = digits.noisy_train_labels(0.25)
    np.testing.assert_array_equal(digits.noisy_train_labels(np.float64(0.25)), expected)


# ---- listed noise

CLASSES = {"n00000001": 0, "n00000002": 1, "n00000003": 2}
TRAIN = Part(
    names=tuple(sorted(f"train/{wnid}/{index}.JPEG" for wnid in CLASSES for index in range(200))),
    labels=tuple(label for label in CLASSES.values() for _ in range(200)),
    write=lambda out: [],
)


def rows() -> list[dict[str, str]]:
    """Write down a list of the official form, drawn here in another way than it was."""
    rng = np.random.default_rng(5)
    wnids = list(CLASSES)
    table = []
    wrong = {fraction: set(rng.choice(600, round(fraction * 600), replace=False)) for fraction in COLUMNS}
    for row in rng.permutation(600):
        label = TRAIN.labels[row]
        given = {
            column: wnids[(label + 1 + row % 2) % 3 if row in wrong[fraction] else label]
            for fraction, column in COLUMNS.items()
        }
        table.append({"path": TRAIN.names[row], **given, "is_valid": "False"})
    valid = dict.fromkeys(COLUMNS.values(), wnids[1])
    return [*table, {"path": "val/n00000002/a.JPEG", **valid, "is_valid": "True"}]


def write(root: Path, table: list[dict[str, str]]) -> None:
    with (root / "noisy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def expected_labels() -> dict[float, list[int]]:
    by_path = {row["path"]: row for row in rows()}
    return {
        fraction: [CLASSES[by_path[name][column]] for name in TRAIN.names]
        for fraction, column in COLUMNS.items()
    }


def spec() -> NoiseList:
    labels = expected_labels()
    listed = np.array([labels[fraction] for fraction in (0.01, 0.05, 0.25, 0.5)], dtype=np.int64)
    return NoiseList("noisy.csv", array_digest(listed), "https://example.org/lists")


def read(root: Path, noise: NoiseList | None = None) -> ListedNoise:
    return read_noise(root, noise or spec(), CLASSES, TRAIN)


def test_a_list_is_read_in_the_order_of_the_images(tmp_path: Path) -> None:
    write(tmp_path, rows())
    noise = read(tmp_path)
    true = np.array(TRAIN.labels)
    for fraction, labels in expected_labels().items():
        given = noise.labels_at(fraction, true)
        assert given.tolist() == labels
        assert given.dtype == np.int64
        assert (given != true).sum() == round(600 * fraction)
    again = ListedNoise.from_json(noise.to_json())
    assert again is not None
    np.testing.assert_array_equal(again.labels_at(0.5, true), noise.labels_at(0.5, true))


@pytest.mark.parametrize("fraction", [0.1, 0.02, 1, -0.05, np.nan, True, False, "0.05", None])
def test_a_fraction_without_a_list_is_refused(tmp_path: Path, fraction: Any) -> None:
    write(tmp_path, rows())
    with pytest.raises(DataError, match=r"expected 0, 0\.01, 0\.05, 0\.25 or 0\.5, .* but .+ came"):
        read(tmp_path).labels_at(fraction, np.array(TRAIN.labels))


def test_what_is_wrong_with_listed_noise_names_the_field_and_the_dataset(
    tmp_path: Path, digits: Dataset
) -> None:
    write(tmp_path, rows())
    dataset = replace(digits, name="imagenette-160", noise=read(tmp_path))
    for give in (dataset.noisy_train_labels, dataset.fingerprint_with):
        with pytest.raises(DataError, match=r"^label_noise of imagenette-160: expected 0, .* but 0\.3 came;"):
            give(0.3)
    missing = replace(digits, name="imagewoof", noise=read(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"^label_noise of imagewoof: .*noisy\.csv, which is missing"):
        missing.noisy_train_labels(0.05)


def changed(column: str, value: str, path: str = TRAIN.names[0]) -> Callable[[list[dict[str, str]]], Any]:
    def act(table: list[dict[str, str]]) -> Any:
        return [row | {column: value} if row["path"] == path else row for row in table]

    return act


def all_right_at(column: str) -> Callable[[list[dict[str, str]]], Any]:
    return lambda table: [row | {column: row["noisy_labels_0"]} for row in table]


def without(column: str) -> Callable[[list[dict[str, str]]], Any]:
    return lambda table: [{key: value for key, value in row.items() if key != column} for row in table]


def swapped(table: list[dict[str, str]]) -> Any:
    """Give two images each other's labels at 50 %, one of them wrong: the rate stays."""
    wrong = next(r for r in table if r["noisy_labels_50"] != r["noisy_labels_0"])
    right = next(
        r for r in table if r["noisy_labels_50"] == r["noisy_labels_0"] and r["path"].startswith("train")
    )
    other = next(wnid for wnid in CLASSES if wnid != right["noisy_labels_0"])
    table = changed("noisy_labels_50", wrong["noisy_labels_0"], wrong["path"])(table)
    return changed("noisy_labels_50", other, right["path"])(table)


DEFECTS: dict[str, tuple[Callable[[list[dict[str, str]]], Any], str]] = {
    "image left out": (lambda table: table[1:], "named 0 times instead of once"),
    "image named twice": (lambda table: [*table, table[0]], "named 2 times instead of once"),
    "unknown class": (changed("noisy_labels_5", "n00000009"), "'n00000009' in noisy_labels_5 is not a class"),
    "empty cell": (changed("noisy_labels_50", ""), "'' in noisy_labels_50 is not a class"),
    "other true class": (changed("noisy_labels_0", "n00000003"), "is not the class of its folder"),
    "no noise": (all_right_at("noisy_labels_25"), "noisy_labels_25: 0 of 600 labels are wrong"),
    "no column": (without("noisy_labels_1"), "no column 'noisy_labels_1'"),
    "no paths": (without("path"), "no column 'path'"),
    "another draw": (swapped, "not those of the official list"),
}


@pytest.mark.parametrize(("defect", "message"), DEFECTS.values(), ids=DEFECTS.keys())
def test_a_wrong_list_shows_once_noise_is_asked_for(
    tmp_path: Path, defect: Callable[[list[dict[str, str]]], Any], message: str
) -> None:
    write(tmp_path, defect(rows()))
    noise = read(tmp_path)
    true = np.array(TRAIN.labels)
    assert noise.labels_at(0, true).tolist() == true.tolist()
    with pytest.raises(DataError) as caught:
        noise.labels_at(0.05, true)
    for part in (message, "noisy.csv", "https://example.org/lists", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"path\n", b'"' + b"x" * 200_000, None])
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / "noisy.csv").mkdir()
    else:
        (tmp_path / "noisy.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"Put noisy\.csv of https://example\.org/lists into"):
        read(tmp_path).labels_at(0.5, np.array(TRAIN.labels))


def test_a_missing_list_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which is missing") as caught:
        read(tmp_path).labels_at(0.5, np.array(TRAIN.labels))
    assert f"Put noisy.csv of https://example.org/lists into {tmp_path}" in str(caught.value)
    before = state(tmp_path, spec())
    write(tmp_path, rows())
    assert state(tmp_path, spec()) != before
