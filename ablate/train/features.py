"""What a trained network's penultimate layer shows: how tight its classes are, and a view of three of them.

The features of an image are what goes into the linear layer whose output is the logits. They are read once,
after the last epoch, in evaluation mode and without augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.train.evaluate import predict
from ablate.train.images import Images
from ablate.train.scatter import (
    PLANE_CLASSES,
    Plane,
    Scatter,
    scatter_of,
    template_plane,
    template_span,
)
from ablate.train.settings import Settings

TRAIN_IMAGES = 4096
"""At most so many training images are looked at."""

POINTS_PER_CLASS = 200
"""At most so many images of each of these classes are projected."""


@dataclass(frozen=True, eq=False)
class SplitFeatures:
    """What is kept of one split.

    Attributes:
        scatter: over all its images.
        points: [n, 2] float32, images in the plane, by class and then as they come; None without a plane.
        point_labels: [n] int64, their classes.
    """

    scatter: Scatter
    points: NDArray[np.float32] | None = None
    point_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Features:
    """What is kept of a network's penultimate layer.

    Attributes:
        dimension: width D of the layer.
        plane: of the projected points; None with fewer than three classes, or where their templates lie on
            one line.
        valid: the reported split.
        train: training images, with the labels that they were trained on.
    """

    dimension: int
    plane: Plane | None
    valid: SplitFeatures
    train: SplitFeatures


def penultimate_features(
    model: nn.Module, train: Images, valid: Images, settings: Settings
) -> Features | None:
    """Look at the penultimate layer of a trained network; it is left in evaluation mode.

    Returns:
        None where the network does not end in a linear layer, where a feature is not finite, or where
        anything fails: the trial has its result already.
    """
    try:
        head = find_head(model, valid, settings)
        if head is None:
            return None
        weight, bias = _weights(head)
        plane, span = template_plane(weight, bias), template_span(weight)
        index = even_subset(train.labels, TRAIN_IMAGES)
        return Features(
            dimension=head.in_features,
            plane=plane,
            valid=_split(*_features(model, head, valid, settings, None), plane, span),
            train=_split(*_features(model, head, train, settings, index), plane, span),
        )
    except Exception:  # a foreign network may raise anything, and memory may end
        return None


def find_head(model: nn.Module, images: Images, settings: Settings) -> nn.Linear | None:
    """The linear layer whose output is the network's logits, found by running the first two images."""
    device = images.labels.device
    ran: list[tuple[nn.Linear, Tensor]] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            ran.append((module, output))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        logits = predict(model, images, settings, torch.arange(min(2, len(images)), device=device))
    finally:
        for handle in handles:
            handle.remove()
    return next((module for module, output in reversed(ran) if torch.equal(output.float(), logits)), None)


def even_subset(labels: Tensor, count: int) -> Tensor | None:
    """At most `count` places at even steps through the images sorted by class; None where that is all.

    A class with at least N / count images is always in, in proportion to its size.
    """
    if len(labels) <= count:
        return None
    steps = torch.arange(count, device=labels.device) * len(labels) // count
    return labels.argsort(stable=True)[steps]


def _weights(head: nn.Linear) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    weight, bias = head.weight.detach(), None if head.bias is None else head.bias.detach()
    return weight.cpu().double().numpy(), None if bias is None else bias.cpu().double().numpy()


def _split(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    plane: Plane | None,
    span: NDArray[np.float64],
) -> SplitFeatures:
    scatter = scatter_of(features, labels, span)
    if plane is None:
        return SplitFeatures(scatter)
    shown = np.concatenate([np.flatnonzero(labels == k)[:POINTS_PER_CLASS] for k in PLANE_CLASSES])
    return SplitFeatures(scatter, plane.project(features[shown]), labels[shown])


def _features(
    model: nn.Module, head: nn.Linear, images: Images, settings: Settings, index: Tensor | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inputs [N, D] of the head for a split or a part of it, and the labels [N]."""
    batches: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # A copy: the input may be a view of all tokens, which would be kept with it.
        batches.append(inputs[0].to("cpu", torch.float32, copy=True))

    handle = head.register_forward_pre_hook(keep)
    try:
        predict(model, images, settings, index)
    finally:
        handle.remove()
    features = torch.cat(batches).numpy()
    labels = (images.labels if index is None else images.labels[index]).cpu().numpy()
    if features.shape != (len(labels), head.in_features) or not np.isfinite(features).all():
        raise ValueError("expected one row of finite features per image")
    return features, labels
