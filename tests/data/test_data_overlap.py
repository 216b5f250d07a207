from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data import Split, overlap, split_digest

LEVELS = st.lists(st.integers(0, 3), min_size=0, max_size=12)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=10)


def split(levels: list[int], labels: list[int] | None = None) -> Split:
    """Write down a split of 2×2 pixels, one image of each level."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple(f"{row}.png" for row in range(len(levels)))
    return Split(images, np.array(labels or [0] * len(levels), np.int64), names)


def of_pairs(pairs: list[tuple[int, int]]) -> Split:
    return split([level for level, _ in pairs], [label for _, label in pairs])


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_a_split_is_not_in_its_digest(pairs: list[tuple[int, int]], random: Any) -> None:
    moved = random.sample(pairs, len(pairs))
    assert split_digest(of_pairs(moved)) == split_digest(of_pairs(pairs))


@given(PAIRS, PAIRS)
@settings(max_examples=100, deadline=None)
def test_digests_are_equal_just_where_images_with_labels_are(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    same = sorted(one) == sorted(other)
    assert (split_digest(of_pairs(one)) == split_digest(of_pairs(other))) == same


def test_a_digest_sees_one_pixel_one_label_and_which_label_an_image_has() -> None:
    base = split([1, 2, 3], [0, 1, 2])
    one_pixel = split([1, 2, 3], [0, 1, 2])
    one_pixel.images[1, 0, 1, 2] ^= 1
    others = [one_pixel, split([1, 2, 3], [0, 1, 1]), split([1, 2, 3], [1, 0, 2])]
    assert len({split_digest(found) for found in (base, *others)}) == 4


def test_a_digest_sees_the_shape_and_not_the_names() -> None:
    flat = Split(np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3), np.zeros(1, np.int64), ("a",))
    tall = Split(flat.images.reshape(1, 4, 2, 3), flat.labels, ("a",))
    renamed = Split(flat.images, flat.labels, ("b",))
    assert split_digest(flat) == split_digest(renamed) != split_digest(tall)


@given(LEVELS, LEVELS)
@settings(max_examples=100, deadline=None)
def test_overlap_counts_every_image_of_the_first(one: list[int], other: list[int]) -> None:
    a, b = split(one), split(other)
    by_hand = sum(any((mine == theirs).all() for theirs in b.images) for mine in a.images)
    assert overlap(a, b) == by_hand


def test_overlap_looks_at_every_pixel_and_at_no_label() -> None:
    a, b = split([1, 2, 3], [0, 0, 0]), split([3, 2, 1], [1, 1, 1])
    assert overlap(a, b) == 3
    for place in np.ndindex(2, 2, 3):
        b.images[(1, *place)] ^= 1
        assert overlap(a, b) == 2
        b.images[(1, *place)] ^= 1
