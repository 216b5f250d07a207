"""What two splits share: digests of single images, and of a split whose order does not matter."""

import hashlib

from ablate.data.dataset import Split, array_digest, canonical_json


def split_digest(split: Split) -> str:
    """Return the SHA-256 (hex) of a split's images and labels, whatever their order and their names.

    It is taken over the sorted pairs of each image's digest and its label, so an image that occurs twice
    counts twice.
    """
    pairs = zip(map(array_digest, split.images), split.labels.tolist(), strict=True)
    return hashlib.sha256(canonical_json(sorted(pairs))).hexdigest()


def overlap(a: Split, b: Split) -> int:
    """Return how many images of `a` have exactly the pixels of some image of `b`: 0..len(a).

    Labels and names are not looked at. Images of which a copy differs by one level in one pixel, as after
    being compressed again, are not found.
    """
    known = set(map(array_digest, b.images))
    return sum(array_digest(image) in known for image in a.images)
