"""What a trained network's penultimate layer shows: how tight its classes are, and a view of three of them.

An image's features are what goes into the linear layer whose output is the logits, in evaluation mode and not
augmented. A class's template is its row of that layer's weights, with its bias as one more coordinate; an
image's features have a 1 there.

Source: Kornblith et al. 2021, equation 11, https://arxiv.org/abs/2010.16402;
Müller, Kornblith and Hinton 2019, the plane in sections 1.1 and 2, https://arxiv.org/abs/1906.02629
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.errors import FOREIGN_FAULTS
from ablate.models.weights import head_of
from ablate.store.records import Features, Scatter
from ablate.study.fields import Fields
from ablate.train.images import Images
from ablate.train.step import predict

TRAIN_IMAGES = 4096
"""At most so many training images are looked at."""

PLANE_CLASSES = (0, 1, 2)
"""The classes whose templates span the plane of a projection."""

POINTS_PER_CLASS = 200
"""At most so many images of each of these classes are projected."""


def penultimate_features(
    model: nn.Module, train: Images, valid: Images, fields: Fields
) -> tuple[Features | None, dict[str, NDArray[Any]]]:
    """What the record keeps of a trained network's penultimate layer, and projections as in `Predictions`.

    There is nothing where the network does not end in a linear layer, where a feature is not finite, or where
    anything fails: the trial has its result already. The network is left in evaluation mode.
    """
    try:
        name = head_of(model)
        if name is None:
            return None, {}
        head: Any = model.get_submodule(name)
        weight = head.weight.detach().cpu().double().numpy()
        bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().cpu().double().numpy()
        templates, span = np.column_stack([weight, bias]), template_span(weight)
        plane = template_plane(templates)
        facts: dict[str, Any] = {"dimension": head.in_features}
        if plane is not None:
            shown = templates[list(PLANE_CLASSES)] @ plane
            facts |= {"classes": PLANE_CLASSES, "templates": shown.tolist()}
        projections: dict[str, NDArray[Any]] = {}
        subset = even_subset(train.labels, TRAIN_IMAGES)
        for split, images, index in (("valid", valid, None), ("train", train, subset)):
            features, labels = _head_inputs(model, head, images, fields, index)
            facts[split] = scatter_of(features, labels, span)
            if plane is not None:
                some = np.concatenate([np.flatnonzero(labels == k)[:POINTS_PER_CLASS] for k in PLANE_CLASSES])
                points = features[some].astype(np.float64) @ plane[:-1] + plane[-1]
                projections[f"projection_{split}"] = points.astype(np.float32)
                projections[f"projection_{split}_labels"] = labels[some]
        return Features(**facts), projections
    except FOREIGN_FAULTS:  # a foreign network may raise anything, and memory may end
        return None, {}


def even_subset(labels: Tensor, count: int) -> Tensor | None:
    """At most `count` indices at even steps through the images sorted by class; None where that is all."""
    if len(labels) <= count:
        return None
    steps = torch.arange(count, device=labels.device) * len(labels) // count
    return labels.argsort(stable=True)[steps]


def _head_inputs(
    model: nn.Module, head: nn.Module, images: Images, fields: Fields, index: Tensor | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inputs [N, D] of the head for a split or a part of it, and the labels [N]."""
    batches, outputs = list[Tensor](), list[Tensor]()

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A copy: the input may be a view of all tokens, which would be kept with it.
        batches.append(inputs[0].to("cpu", torch.float32, copy=True))
        outputs.append(output)

    with head.register_forward_hook(keep):
        logits = predict(model, images, fields, index)
    features = torch.cat(batches).numpy()
    if not torch.equal(torch.cat(outputs), logits) or not np.isfinite(features).all():
        raise ValueError("expected one row of finite features per image, which give its logits")
    return features, (images.labels if index is None else images.labels[index]).cpu().numpy()


def scatter_of(
    features: NDArray[np.floating], labels: NDArray[np.integer], span: NDArray[np.float64]
) -> Scatter:
    """Scatter of features [N, D], in float64; `span` [D, R] is of `template_span`."""
    groups = [features[labels == label].astype(np.float64) for label in np.unique(labels)]
    lengths = [np.linalg.norm(group, axis=1, keepdims=True) for group in groups]
    # Features that are all zero have no direction and stay at the origin.
    directions = [group / np.where(of > 0, of, 1) for group, of in zip(groups, lengths, strict=True)]
    within, between, _ = _moments(directions)
    trace_within, trace_between, squared_mean = _moments(groups)
    template_within, template_between, _ = _moments([group @ span for group in groups])
    return Scatter(
        within=within, between=between,
        trace_within=trace_within, trace_between=trace_between, squared_mean=squared_mean,
        template_within=template_within, template_between=template_between,
    )  # fmt: skip


def _moments(groups: list[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Mean squared distance to the class means, of these to their mean, and the squared length of that."""
    means = np.stack([group.mean(axis=0) for group in groups])
    center = means.mean(axis=0)
    within = np.mean([((g - m) ** 2).sum(axis=1).mean() for g, m in zip(groups, means, strict=True)])
    return float(within), float(((means - center) ** 2).sum(axis=1).mean()), float(center @ center)


def template_span(weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Orthonormal basis [D, R] of the differences of all rows of weights [K, D]: all that a softmax sees."""
    differences = (weight - weight.mean(axis=0)).astype(np.float64)
    _, lengths, basis = np.linalg.svd(differences, full_matrices=False)
    return np.asarray(basis[lengths > np.finfo(np.float32).eps * np.abs(weight).max()].T)


def template_plane(templates: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Orthonormal basis [D + 1, 2] of the plane through the first three of templates [K, D + 1].

    From the first to the second, then towards the third; at a point p of the plane the logits of two classes
    differ by p · (t_j - t_i). None with fewer than three classes, or where the templates lie on one line.
    """
    if len(templates) <= max(PLANE_CLASSES):
        return None
    corners = templates[list(PLANE_CLASSES)]
    basis, triangle = np.linalg.qr((corners[1:] - corners[0]).T)
    lengths = np.diag(triangle)
    if np.abs(lengths).min() <= np.finfo(np.float32).eps * np.abs(corners).max():
        return None
    return np.asarray(basis * np.sign(lengths))  # Gram-Schmidt: each axis points to its template
