"""The theme: colours that everybody can tell apart, SVG that repeats byte by byte and loads nothing."""

import io
import itertools
import math
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablate.figures.theme import (
    DARK,
    LIGHT,
    Theme,
    _slim,
    capped,
    figure_svg,
    level_colors,
    names_of,
    shorten,
    spread,
    view_limits,
)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB: https://doi.org/10.1109/TVCG.2009.113
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
Vector = NDArray[np.float64]


def linear(color: str) -> Vector:
    """sRGB in hexadecimal to linear RGB."""
    channels = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(color: str, vision: Vector) -> Vector:
    """CIE L*a*b* (D65) of a colour as somebody sees it."""
    seen = np.clip(vision @ linear(color), 0, 1)
    relative = XYZ @ seen / np.array([0.95047, 1.0, 1.08883])
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio, 1 to 21."""
    dark, light = sorted(float(XYZ[1] @ linear(color)) + 0.05 for color in (first, second))
    return light / dark


@THEMES
@pytest.mark.parametrize("vision", VISIONS)
def test_categories_are_told_apart_with_any_colour_vision(theme: Theme, vision: str) -> None:
    seen = [lab(color, VISIONS[vision]) for color in theme.palette]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 15


@THEMES
@pytest.mark.parametrize("vision", VISIONS)
def test_ordered_levels_rise_in_lightness_with_any_colour_vision(theme: Theme, vision: str) -> None:
    lightness = [lab(color, VISIONS[vision])[0] for color in level_colors(theme, 7)]
    assert np.all(np.diff(lightness) > 0)


@THEMES
def test_everything_stands_out_from_the_surface(theme: Theme) -> None:
    assert all(contrast(c, theme.surface) >= 3 for c in (*theme.palette, *level_colors(theme, 12)))
    assert all(contrast(color, theme.surface) >= 4.5 for color in (theme.ink, theme.muted))


def draw(figure: Figure) -> None:
    ax = figure.subplots()
    for number in range(3):
        ax.plot([0, 1, 2], [number, 1, 2], label=f"a_{number} $x^2$ <b> $")
    ax.bar([0, 1], [1, 2], hatch="//")
    ax.legend()
    ax.set_title("α & $")


def test_the_same_drawing_gives_the_same_bytes() -> None:
    assert figure_svg(draw, ordered=3) == figure_svg(draw, ordered=3)


@pytest.mark.parametrize("ordered", [0, 3])
def test_dark_is_light_in_other_colours(ordered: int) -> None:
    def colors(svg: bytes) -> set[str]:
        return set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg.decode()))

    light, dark = figure_svg(draw, ordered=ordered)
    assert re.sub(rb"#[0-9a-f]{6}\b", b"", light) == re.sub(rb"#[0-9a-f]{6}\b", b"", dark)
    for svg, theme in ((light, LIGHT), (dark, DARK)):
        expected = {theme.surface, theme.ink, theme.muted, theme.grid, *level_colors(theme, ordered)[:3]}
        # Black is what matplotlib gives a bar's hatch and an undrawn edge.
        assert expected - {theme.grid} <= colors(svg) <= expected | {"#000000"}


def test_svg_holds_words_but_no_font_date_or_foreign_address() -> None:
    light, _ = figure_svg(draw, title="T < & title", alt="An <alt> & text")
    root = ElementTree.fromstring(light)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"text", "script", "image", "date", "foreignObject"}
    assert any(element.text == "An <alt> & text" for element in root.iter())
    links = [value for e in root.iter() for name, value in e.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert b"@import" not in light
    assert b"url(http" not in light


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    figure_svg(draw)
    with pytest.raises(RuntimeError, match="stop"):
        figure_svg(lambda figure: (_ for _ in ()).throw(RuntimeError("stop")))
    assert dict(matplotlib.rcParams) == before


def test_a_readers_own_settings_change_nothing() -> None:
    expected = figure_svg(draw)
    with matplotlib.rc_context({"font.size": 30, "axes.linewidth": 9, "svg.fonttype": "none"}):
        assert figure_svg(draw) == expected


def test_no_pyplot_and_no_torch() -> None:
    code = (
        "import ablate.figures, sys; ablate.figures.figure_svg(lambda figure: figure.subplots());"
        "print(sorted({'matplotlib.pyplot', 'torch', 'seaborn'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_dollar_signs_are_letters_and_not_mathematics() -> None:
    assert figure_svg(lambda figure: figure.subplots().set_title(r"a $\nonsense{$ b"))


def test_letters_that_the_font_lacks_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure_svg(lambda figure: figure.subplots().set_title("損失"))


def test_long_labels_lose_their_middle() -> None:
    assert shorten("epsilon=0.1") == "epsilon=0.1"
    short = shorten("arch=package.module.with.a.long.name:factory, epsilon=0.1")
    assert len(short) <= 40
    assert short.startswith("arch=package")
    assert short.endswith("epsilon=0.1")


@pytest.mark.parametrize(
    ("limit", "kept", "left"), [(2, (1, 2), (3,)), (3, (1, 2, 3), ()), (5, (1, 2, 3), ())]
)
def test_capped_keeps_the_first(limit: int, kept: tuple[int, ...], left: tuple[int, ...]) -> None:
    assert capped([1, 2, 3], limit) == (kept, left)


@given(size=st.integers(0, 30), limit=st.integers(1, 12), always=st.sets(st.integers(0, 29), max_size=5))
def test_spread_keeps_order_both_ends_and_what_matters(size: int, limit: int, always: set[int]) -> None:
    kept, left_out = spread(range(size), limit, always)
    assert len(kept) == min(size, limit)
    assert sorted([*kept, *left_out]) == list(range(size))
    assert list(kept) == sorted(kept)
    wanted = [item for item in range(size) if item in always]
    assert set(wanted[:limit]) <= set(kept)
    if not wanted and limit > 1 and size:
        assert {0, size - 1} <= set(kept)


def test_what_is_left_out_is_named_or_counted() -> None:
    assert names_of(["a", "b"]) == "a, b"
    assert names_of(list("abcdefg")) == "a, b, c, d, 3 more"


def test_a_label_that_legends_would_pass_over_is_in_them() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([0, 1], label=shorten("_hidden"))
    assert [text.get_text().strip() for text in ax.legend().get_texts()] == ["_hidden"]


def test_an_interval_is_cut_only_where_it_dwarfs_the_values() -> None:
    low, high = view_limits([0.0, 1.0], [-2.0, 3.0])
    assert low < -2
    assert high > 3
    low, high = view_limits([0.0, 1.0], [-100.0, 100.0, math.nan])
    assert (low, high) == pytest.approx((-3.35, 4.35))
    assert view_limits([0.5], [0.1, 0.9])[0] < 0.1  # one value has no range to judge by
    assert view_limits([], []) == pytest.approx((-0.05, 1.05))


def test_smaller_files_are_the_same_drawing() -> None:
    """Places move by at most a hundredth of a point, and every mark is still there."""
    buffer = io.BytesIO()
    figure = Figure()
    figure.subplots().plot([0, 1, 2], [0.123456, 1, 2], "o-")
    figure.savefig(buffer, format="svg")
    before, after = buffer.getvalue(), _slim(buffer.getvalue())
    assert len(after) < len(before)

    def numbers(svg: bytes) -> list[float]:
        found = re.findall(rb'\s(?:d|x|y)="([^"]*)"', svg)
        return [float(number) for text in found for number in re.findall(rb"-?\d+\.?\d*", text)]

    np.testing.assert_allclose(numbers(after), numbers(before), atol=0.00501)
    count = [len(list(ElementTree.fromstring(svg).iter())) for svg in (before, after)]
    assert count[0] == count[1]
