"""Geometry of features and templates: how tight classes are, and the plane through three templates.

References:
    Kornblith, Chen, Lee and Norouzi, "Why Do Better Loss Functions Lead to Less Transferable Features?",
    2021, equation 11: distances within classes and in total. https://arxiv.org/abs/2010.16402
    Müller, Kornblith and Hinton, "When Does Label Smoothing Help?", 2019, sections 1.1 and 2: the plane
    through three templates. https://arxiv.org/abs/1906.02629
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLANE_CLASSES = (0, 1, 2)
"""The classes whose templates span the plane of a projection."""


@dataclass(frozen=True)
class Scatter:
    """How far a split's features lie from their class's mean, and the class means from each other.

    Every class counts the same. The first two are of directions, features divided by their length, so they
    do not change when an image's features are scaled or all are rotated, and can be compared between
    networks. An image whose features are all zero has no direction and is left at the origin. The others are
    of the features as they are, squared lengths, from which Euclidean ratios can be formed.

    Attributes:
        within: mean over classes of the mean squared distance to the class's mean direction, which is the
            mean cosine distance in a class over all pairs, an image with itself too; 0 (one direction) to 1.
        between: mean squared distance of the classes' mean directions to their mean, 0 (all the same) to 1.
            within + between is the mean cosine distance of all images, at most 1, and between over this sum
            is the class separation R².
        trace_within: trace of the mean of the classes' covariances.
        trace_between: trace of the covariance of the class means.
        squared_mean: squared length of the mean of the class means.
        template_within: as trace_within, of the features projected onto the templates' differences, where a
            template is a class's row of the last layer's weights. This is all that the softmax sees of them,
            and what Müller et al. show of three classes.
        template_between: as trace_between, likewise.
    """

    within: float
    between: float
    trace_within: float
    trace_between: float
    squared_mean: float
    template_within: float
    template_between: float


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through the templates of three classes.

    A class's template is its row of the last layer's weights with its bias as one more coordinate; an image's
    features have a 1 there.

    Attributes:
        basis: [D + 1, 2] orthonormal: from the first template to the second, then towards the third.
        templates: [3, 2] the templates' own coordinates.
        classes: the three.
    """

    basis: NDArray[np.float64]
    templates: NDArray[np.float64]
    classes: tuple[int, ...] = PLANE_CLASSES

    def project(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Coordinates [N, 2] of features [N, D].

        A point p has the logit difference p · (t_j - t_i) of two of the three classes with templates t: all
        three are equal at the origin, and where two are equal is a line through it.
        """
        points: NDArray[np.float64] = features.astype(np.float64) @ self.basis[:-1] + self.basis[-1]
        return points.astype(np.float32)


def scatter_of(
    features: NDArray[np.floating], labels: NDArray[np.integer], span: NDArray[np.float64]
) -> Scatter:
    """Scatter of one split, computed in float64.

    Args:
        features: [N, D].
        labels: [N] class ids.
        span: [D, R] of `template_span`.
    """
    groups = [features[labels == label].astype(np.float64) for label in np.unique(labels)]
    within, between, _ = _moments([_directions(group) for group in groups])
    template_within, template_between, _ = _moments([group @ span for group in groups])
    return Scatter(within, between, *_moments(groups), template_within, template_between)


def template_span(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Orthonormal basis [D, R] of the differences of all rows of weights [K, D]; R is at most K - 1.

    Biases are left out: they move the features of all images alike.
    """
    differences = (weight - weight.mean(axis=0)).astype(np.float64)
    _, lengths, basis = np.linalg.svd(differences, full_matrices=False)
    return np.asarray(basis[lengths > np.finfo(np.float32).eps * np.abs(weight).max()].T)


def template_plane(weight: NDArray[np.floating], bias: NDArray[np.floating] | None) -> Plane | None:
    """The plane of the first three classes' templates.

    Args:
        weight: [K, D] of the last layer.
        bias: [K]; None is zero.

    Returns:
        None with fewer than three classes, or where the templates lie on one line.
    """
    bias = np.zeros(len(weight)) if bias is None else bias
    if len(weight) <= max(PLANE_CLASSES):
        return None
    templates = np.column_stack([weight, bias])[list(PLANE_CLASSES)].astype(np.float64)
    basis, triangle = np.linalg.qr((templates[1:] - templates[0]).T)
    lengths = np.diag(triangle)
    if np.abs(lengths).min() <= np.finfo(np.float32).eps * np.abs(templates).max():
        return None
    # Gram-Schmidt, which QR is but for signs: each axis points to its template.
    basis = basis * np.sign(lengths)
    return Plane(basis, templates @ basis)


def _directions(group: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(group, axis=1, keepdims=True)
    return group / np.where(lengths > 0, lengths, 1)


def _moments(groups: list[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Mean squared distance to the class means, of these to their mean, and the squared length of that."""
    means = np.stack([group.mean(axis=0) for group in groups])
    center = means.mean(axis=0)
    within = np.mean([((g - m) ** 2).sum(axis=1).mean() for g, m in zip(groups, means, strict=True)])
    return float(within), float(((means - center) ** 2).sum(axis=1).mean()), float(center @ center)
