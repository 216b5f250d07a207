"""The theme: colours that everybody can tell apart, SVG that repeats byte by byte and loads nothing."""

import io
import itertools
import os
import re
import shutil
import subprocess
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from fontTools.pens.recordingPen import RecordingPen  # type: ignore[import-untyped]
from fontTools.svgLib.path import parse_path  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablate.figures import draw
from ablate.figures.theme import (
    DARK,
    LIGHT,
    STEPS,
    TINTS,
    Theme,
    level_colors,
    outline,
    pdf_of,
    slim,
    svg_of,
    themed,
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
    channels = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(color: str, vision: Vector) -> Vector:
    """CIE L*a*b* (D65) of a colour as somebody sees it."""
    seen = np.clip(vision @ linear(color), 0, 1)
    relative = XYZ @ seen / np.array([0.95047, 1.0, 1.08883])
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(first: str, second: str) -> float:
    dark, light = sorted(float(XYZ[1] @ linear(color)) + 0.05 for color in (first, second))
    return light / dark


@THEMES
@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_with_any_colour_vision(theme: Theme, vision: str) -> None:
    seen = [lab(color, VISIONS[vision]) for color in theme.palette]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 15
    shades = [lab(theme.shade(step), VISIONS[vision])[0] for step in range(0, STEPS, 9)]
    assert np.all(np.diff(shades) > 0)


@THEMES
def test_everything_stands_out_from_the_surface(theme: Theme) -> None:
    drawn = [*theme.palette, *(theme.shade(step) for step in range(STEPS))]
    assert all(contrast(color, theme.surface) >= 3 for color in drawn)
    assert all(contrast(color, theme.surface) >= 4.5 for color in (theme.ink, theme.muted))
    tints = [theme.tint(category, step) for category in (0, 1) for step in range(TINTS)]
    assert all(contrast(theme.ink, tint) >= 3 for tint in tints)


def drawing() -> Figure:
    figure, (ax,) = draw.panels(height=2)
    handles = draw.Handles()
    for number, color in enumerate(level_colors(3, ordered=True)):
        (handles[f"a_{number} $x^2$ <b> $"],) = ax.plot([0, 1, 2], [number, 1, 2], color=color)
    draw.dots(ax, [0, 1], [1, 2], [LIGHT.tint(0, 3), LIGHT.palette[1]])
    ax.set_title(r"α & $\nonsense{$ b")  # a dollar sign is a letter, and not mathematics
    draw.arrange(figure, handles)
    return figure


def rendered(title: str = "", alt: str = "") -> tuple[bytes, bytes]:
    with themed(""):
        return svg_of(drawing(), title=title, alt=alt)


def test_a_pdf_repeats_byte_by_byte_and_has_its_fonts() -> None:
    with themed(""):
        pdf, again = pdf_of(drawing(), title="T"), pdf_of(drawing(), title="T")
    assert pdf == again
    assert pdf.startswith(b"%PDF-")
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf


def test_dark_is_light_in_other_colours() -> None:
    light, dark = rendered()
    assert (light, dark) == rendered()
    found = [set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg.decode())) for svg in (light, dark)]
    for colors, theme in zip(found, (LIGHT, DARK), strict=True):
        used = {theme.tint(0, 3), theme.palette[1], theme.surface, theme.ink, theme.muted, theme.grid}
        assert colors == used | {theme.shade(step) for step in (0, round((STEPS - 1) / 2), STEPS - 1)}


def test_svg_holds_words_but_no_font_date_or_foreign_address() -> None:
    light, _ = rendered("T < & title", "An <alt> & text")
    elements = list(ElementTree.fromstring(light).iter())
    tags = {element.tag.rpartition("}")[2] for element in elements}
    assert not tags & {"text", "script", "image", "date", "foreignObject"}
    assert "An <alt> & text" in [element.text for element in elements]
    links = [value for e in elements for name, value in e.attrib.items() if name.endswith("href")]
    assert {link[0] for link in links} == {"#"}
    assert b"url(http" not in light


def test_a_readers_own_settings_change_nothing_and_stay_as_they_were() -> None:
    expected, before = rendered(), dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.linewidth": 9, "svg.fonttype": "none"}):
        assert rendered() == expected
    with pytest.raises(RuntimeError, match="stop"), themed(""):
        raise RuntimeError("stop")
    assert dict(matplotlib.rcParams) == before


NUMBERS = st.lists(st.floats(-900, 900).map(lambda value: round(value, 6)), min_size=14, max_size=14)
COMMANDS = st.lists(st.sampled_from(["M", "L", "L", "Q", "C", "z"]), max_size=12)


@given(COMMANDS, NUMBERS, st.sampled_from([1.0, 0.015625]))
def test_an_outline_keeps_its_points(commands: list[str], numbers: list[float], scale: float) -> None:
    """Read by fontTools; places move by half a hundredth of a point, a letter's by half a tenth of a unit."""
    path, places = "M 0 0", itertools.cycle([*numbers, 0.0, 0.0, 12.5])
    for command in commands:
        count = {"M": 2, "L": 2, "Q": 4, "C": 6, "z": 0}[command]
        # fontTools draws the line that closes an outline only where it has a length, which rounding may end.
        path += " L 990 990" if command == "z" else ""
        path += f" {command} " + " ".join(f"{next(places):.6f}" for _ in range(count))

    def points(outlined: str) -> list[Any]:
        pen = RecordingPen()
        parse_path(outlined, pen)
        return [(kind, *np.ravel(ends)) for kind, ends in pen.value if kind not in ("endPath", "closePath")]

    before, after = points(path), points(outline(path, f"scale({scale:g})"))
    assert [step[0] for step in after] == [step[0] for step in before]
    for own, other in zip(after, before, strict=True):
        close = 0.00501 if scale == 1 else 0.0501
        np.testing.assert_allclose(own[1:], scale * np.array(other[1:]), atol=close)


def before_and_after() -> tuple[bytes, bytes]:
    buffer = io.BytesIO()
    with themed(""):
        drawing().savefig(buffer, format="svg", metadata={"Title": "0.00123"})
    return buffer.getvalue(), slim(buffer.getvalue(), title="0.00123", about="")


def test_smaller_files_have_every_mark_and_letter_in_its_place() -> None:
    before, after = before_and_after()
    assert len(after) < 0.6 * len(before)
    assert b"0.00123" in after  # words are no places
    places = [re.findall(rb"<use [^>]*?\bx=.([-\d.]+). y=.([-\d.]+)", svg) for svg in (before, after)]
    marks, slim_marks = (np.array(found, dtype=float) for found in places)
    assert len(marks) > 10
    np.testing.assert_allclose(slim_marks, marks, atol=0.00501)
    letters = [svg.count(b"<use") - len(marks) - svg.count(b'#DejaVuSans-3"') for svg in (before, after)]
    assert letters[0] == letters[1] > 20
    tree = ElementTree.fromstring(after)
    targets = {value[1:] for one in tree.iter() for name, value in one.items() if name.endswith("href")}
    assert targets <= {one.get("id") for one in tree.iter()}


@pytest.mark.browser
def test_smaller_files_are_the_same_drawing_to_a_browser(tmp_path: Path) -> None:
    browser = os.environ.get("ABLATE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is on the path")
    pixels = []
    for number, svg in enumerate(before_and_after()):
        (tmp_path / f"{number}.svg").write_bytes(svg)
        look = ["--headless", "--no-sandbox", "--force-device-scale-factor=2"]
        files = [f"--screenshot={tmp_path}/{number}.png", f"{tmp_path}/{number}.svg"]
        subprocess.run([browser, *look, *files], check=True, capture_output=True)
        pixels.append(matplotlib.image.imread(tmp_path / f"{number}.png")[..., :3])
    assert pixels[0].std() > 0.05  # something is drawn
    assert np.abs(pixels[0] - pixels[1]).max() < 0.3
    assert np.abs(pixels[0] - pixels[1]).mean() < 1e-3


def test_letters_that_the_usual_font_lacks_come_from_another_one_or_are_told() -> None:
    """Matplotlib brings STIX, which has letters that DejaVu Sans lacks; nothing has the unassigned one."""
    borrowed, nowhere = "\u1d8a", "\u0378"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for letter, lost in ((borrowed, set[str]()), (nowhere, {nowhere})):
            with themed(f"a {letter}\n") as missing:
                assert missing == lost
                figure, (ax,) = draw.panels(height=2)
                ax.set_title(letter)
                assert svg_of(figure, title="", alt="")[0]
