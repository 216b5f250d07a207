"""The penultimate layer's facts against scikit-learn and by hand, and networks of every kind."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics.pairwise import cosine_distances
from small_training import FIELDS, SEED, Made, changed, images, network, pixels, smoothed
from torch import Tensor, nn

from ablate.models.contract import Float32Linear
from ablate.store.records import Features, Scatter
from ablate.train.features import (
    POINTS_PER_CLASS,
    even_subset,
    penultimate_features,
    scatter_of,
    template_plane,
    template_span,
)
from ablate.train.fit import fit
from ablate.train.images import Images
from ablate.train.step import Step

TRAIN, VALID = images(pixels(50, 0, classes=4)), images(pixels(23, 1, classes=4))
Projections = dict[str, NDArray[Any]]
Found = tuple[Features, Projections]


def four(dropout: float = 0.5, bias: bool = True) -> nn.Sequential:
    return network(dropout, classes=4, bias=bias)


def found(model: nn.Module, train: Images = TRAIN, valid: Images = VALID, **changes: Any) -> Found:
    features, projections = penultimate_features(model, train, valid, changed(**changes))
    assert features is not None
    return features, projections


def scatter(features: NDArray[Any], labels: NDArray[Any]) -> Scatter:
    """Scatter with templates that span the first coordinate."""
    return scatter_of(features, labels, np.eye(features.shape[1])[:, :1])


@given(st.integers(0, 2**32 - 1))
def test_directions_scatter_as_kornblith_has_it_and_traces_as_discriminant_analysis(seed: int) -> None:
    """Of features around class means, in classes of different sizes, each with two images at least."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 4, 32) ** 2 // 4
    labels = np.concatenate([np.arange(4), np.arange(4), drawn])
    features = rng.normal(size=(4, 5))[labels] + rng.normal(size=(40, 5))
    facts = scatter(features, labels)

    distances = cosine_distances(features)
    means = np.array([[distances[labels == j][:, labels == k].mean() for k in range(4)] for j in range(4)])
    assert facts.within == pytest.approx(np.trace(means) / 4, rel=1e-12)
    assert facts.within + facts.between == pytest.approx(means.mean(), rel=1e-12)
    scaled = scatter(rng.uniform(0.1, 10, (40, 1)) * features, labels)
    assert (scaled.within, scaled.between) == pytest.approx((facts.within, facts.between), rel=1e-9)

    lda = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True, priors=np.full(4, 1 / 4))
    lda.fit(features, labels)
    traces = np.trace(lda.covariance_), np.trace(np.cov(lda.means_.T, bias=True))
    assert (facts.trace_within, facts.trace_between) == pytest.approx(traces, rel=1e-12)
    assert facts.squared_mean == pytest.approx(np.sum(lda.means_.mean(axis=0) ** 2), rel=1e-12)
    without_direction = scatter(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([0, 0]))
    assert (without_direction.within, without_direction.between) == (0.25, 0.0)


def test_what_the_templates_see_is_scatter_of_the_logits() -> None:
    features, labels = np.random.default_rng(3).normal(size=(40, 5)), np.arange(40) % 4
    weight = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 4)))[0].T  # four orthonormal templates
    logits = features @ weight.T
    seen = scatter(logits - logits.mean(axis=1, keepdims=True), labels)
    facts = scatter_of(features, labels, template_span(weight))
    assert facts.template_within == pytest.approx(seen.trace_within, rel=1e-9)
    assert facts.template_between == pytest.approx(seen.trace_between, rel=1e-9)
    assert facts.template_within < facts.trace_within


LINE = np.arange(3)[:, None] * np.ones((1, 4))
TEMPLATES = [(np.eye(4, 6), 3), (np.eye(4, 2), 2), (np.eye(2), 1), (LINE, 1), (np.ones((3, 4)), 0)]


@pytest.mark.parametrize(("weight", "rank"), [*TEMPLATES, (np.zeros((3, 4)), 0)])
def test_the_templates_span_their_differences_and_at_times_a_plane(weight: NDArray[Any], rank: int) -> None:
    assert (template_plane(np.column_stack([weight, np.zeros(len(weight))])) is not None) == (rank >= 2)
    span = template_span(weight)
    assert span.shape == (weight.shape[1], rank)
    np.testing.assert_allclose(span.T @ span, np.eye(rank), atol=1e-12)
    differences = weight[1:] - weight[0]
    np.testing.assert_allclose(differences @ span @ span.T, differences, atol=1e-12)


def test_the_plane_is_found_by_gram_schmidt_and_its_points_give_the_logit_differences() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(5, 6)), rng.normal(size=5)
    all_templates = np.column_stack([weight, bias])
    first, second, third = all_templates[:3]
    e1 = (second - first) / np.linalg.norm(second - first)
    rest = (third - first) - ((third - first) @ e1) * e1
    plane = template_plane(all_templates)
    assert plane is not None
    np.testing.assert_allclose(plane, np.stack([e1, rest / np.linalg.norm(rest)], 1), atol=1e-12)
    features = rng.normal(size=(30, 6)).astype(np.float32)
    points, templates, logits = projected(features, plane), all_templates @ plane, features @ weight.T + bias
    for i, j in itertools.combinations(range(3), 2):
        expected = logits[:, j] - logits[:, i]
        np.testing.assert_allclose(points @ (templates[j] - templates[i]), expected, atol=1e-4)


def test_a_subset_takes_every_class_in_proportion() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 290, 10])))
    index = even_subset(labels, 100)
    assert index is not None
    assert (len(set(index.tolist())), labels[index].bincount().tolist()) == (100, [70, 29, 1])
    first = (labels == 0).nonzero().flatten()
    assert index[:70].tolist() == first[::10].tolist()
    assert even_subset(labels, 1000) is None


def projected(features: NDArray[Any], plane: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([features, np.ones(len(features))]) @ plane


def by_hand(model: nn.Sequential, images: Images) -> NDArray[Any]:
    """Features of a whole split in one batch, without hooks."""
    with torch.no_grad():
        return np.asarray(model.eval()[:-1](images.batch(slice(None))[0]))


@pytest.mark.parametrize("biased", [True, False])
def test_features_are_what_goes_into_the_last_layer(biased: bool) -> None:
    model = four(bias=biased)
    facts, shown = found(model)
    assert (facts.dimension, facts.classes) == (8, (0, 1, 2))
    head = model[-1]
    assert isinstance(head, nn.Linear)
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy() if biased else np.zeros(4)
    templates = np.column_stack([weight, bias]).astype(np.float64)
    span, plane = template_span(weight), template_plane(templates)
    assert plane is not None
    np.testing.assert_allclose(facts.templates, templates[:3] @ plane, rtol=1e-4, atol=1e-6)
    for split, kept in ((VALID, "valid"), (TRAIN, "train")):
        features, labels = by_hand(model, split), split.labels.numpy()
        expected = scatter_of(features, labels, span).model_dump()
        assert getattr(facts, kept).model_dump() == pytest.approx(expected, rel=1e-4)
        index = np.argsort(labels, kind="stable")[: (labels < 3).sum()]
        points, point_labels = shown[f"projection_{kept}"], shown[f"projection_{kept}_labels"]
        np.testing.assert_array_equal(point_labels, labels[index])
        np.testing.assert_allclose(points, projected(features[index], plane), rtol=1e-4, atol=1e-5)
        assert (points.dtype, point_labels.dtype) == (np.dtype("float32"), np.dtype("int64"))


def test_of_many_images_a_part_is_looked_at_and_a_few_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    split = pixels(1000, 2)[0], np.random.default_rng(0).permutation(np.arange(1000) % 4)
    model, many = four(), images(split)
    monkeypatch.setattr("ablate.train.features.TRAIN_IMAGES", 300)
    facts, shown = found(model, train=many, valid=many)
    index = even_subset(many.labels, 300)
    assert index is not None
    expected = scatter(by_hand(model, many)[index], many.labels[index].numpy())
    assert facts.train.trace_within == pytest.approx(expected.trace_within, rel=1e-4)
    assert np.bincount(shown["projection_train_labels"]).tolist() == [75, 75, 75]
    assert np.bincount(shown["projection_valid_labels"]).tolist() == [POINTS_PER_CLASS] * 3


def test_a_run_has_the_same_bits_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with_model, without_model = four(), four()
    with_facts = fit(Step(with_model, smoothed, TRAIN, FIELDS, SEED), VALID)
    assert with_facts.features == found(with_model)[0]  # they are those of the trained network

    def slow_and_none(*arguments: Any) -> tuple[None, Projections]:
        time.sleep(0.5)
        return None, {}

    monkeypatch.setitem(fit.__globals__, "penultimate_features", slow_and_none)
    without = fit(Step(without_model, smoothed, TRAIN, FIELDS, SEED), VALID)
    assert without.cost.eval_seconds > 0.5
    assert (without.features, without.predictions.projection_valid) == (None, None)
    assert with_facts.predictions.logits.tobytes() == without.predictions.logits.tobytes()
    for name, value in without_model.state_dict().items():
        assert torch.equal(value, with_model.state_dict()[name]), name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in with_model.modules())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_head_within_another_module_is_found(precision: str) -> None:
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(
        image_size=6, patch_size=3, num_layers=1, num_heads=2, hidden_dim=12, mlp_dim=4, num_classes=4
    )
    vit.heads.head.__class__ = Float32Linear  # as building a network marks it
    nn.init.normal_(vit.heads.head.weight)  # torchvision's starts at zero, where no plane is
    one_image = replace(VALID, pixels=VALID.pixels[:1], labels=VALID.labels[:1])  # which is enough
    facts, shown = found(vit, valid=one_image, precision=precision)
    assert (facts.dimension, facts.valid.within) == (12, 0)
    assert "projection_valid" in shown


def test_a_head_of_zeros_or_of_two_classes_has_scatter_and_no_plane() -> None:
    zeros, two = four(), network(0.5, classes=2)
    for parameter in zeros[-1].parameters():
        nn.init.zeros_(parameter)
    of_two = [replace(split, labels=split.labels % 2) for split in (TRAIN, VALID)]
    for facts, shown in (found(zeros), found(two, *of_two)):
        assert (facts.classes, facts.templates, shown) == ((), (), {})
        assert min(facts.valid.within, facts.train.within) > 0


def gated(net: Any, images: Tensor) -> Tensor:
    maps = net.conv(images)
    logits: Tensor = net.head(maps * net.gate(maps.mean((2, 3)))[:, :, None, None]).mean((2, 3))
    return logits


def fails_on_more_than_five(net: Any, images: Tensor) -> Tensor:
    assert len(images) <= 5
    return cast(Tensor, net.body(images))


def overflowing() -> nn.Module:
    body = four()
    body[-1].register_forward_hook(lambda module, inputs, output: output.nan_to_num(0.0, 0.0, 0.0))
    return body


NO_SOUND_HEADS: dict[str, Callable[[], nn.Module]] = {
    "a convolution ends it, after a linear layer with as many outputs": lambda: Made(
        gated, conv=nn.Conv2d(3, 4, 3), gate=Float32Linear(4, 4), head=nn.Conv2d(4, 4, 1)
    ),
    "two views": lambda: Made(lambda net, x: (net.body(x.flip(3)), net.body(x))[1], body=four()),
    "one row per token": lambda: Made(
        lambda net, x: net.head(x.flatten(2).transpose(1, 2)).mean(1), head=Float32Linear(3, 4)
    ),
    "an error": lambda: Made(fails_on_more_than_five, body=four()),
    "features that are not finite where logits are": lambda: Made(
        lambda net, x: net.body[-1](net.body[:-1](x) * torch.inf), body=overflowing()
    ),
}


@pytest.mark.parametrize("kind", NO_SOUND_HEADS)
def test_a_network_without_a_sound_last_layer_has_no_facts(kind: str) -> None:
    model = NO_SOUND_HEADS[kind]()
    assert penultimate_features(model, TRAIN, VALID, FIELDS) == (None, {})
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.cuda
def test_peak_memory_on_cuda_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = (images(pixels(*of, classes=4), "cuda") for of in ((50, 0), (23, 1)))

    def peak() -> float:
        return fit(Step(four().cuda(), smoothed, train, FIELDS, SEED), valid).cost.peak_memory_mb

    peak()
    with_facts = peak()
    monkeypatch.setitem(fit.__globals__, "penultimate_features", lambda *arguments: (None, {}))
    assert peak() == with_facts
