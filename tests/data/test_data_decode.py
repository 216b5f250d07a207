import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ablate.data.decode import RESIZE_METHODS, decode_files, decode_image, decoder_version, unreadable
from ablate.errors import DataError

WriteImage = Callable[..., Path]


def silent(stage: str, done: int, total: int) -> None:
    pass


def _reference_pil_squash(path: Path, image_size: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((image_size, image_size), Image.Resampling.BILINEAR))


def _reference_torch_squash(path: Path, image_size: int) -> np.ndarray:
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    squashed = torch.nn.functional.interpolate(
        pixels.permute(2, 0, 1).float()[None],
        (image_size, image_size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return squashed[0].permute(1, 2, 0).numpy()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_squash_agrees_with_pil_and_with_torch(
    tmp_path: Path, write_image: WriteImage, width: int, height: int, image_size: int
) -> None:
    path = write_image(tmp_path / "a.png", size=(width, height))
    decoded = decode_image(path, image_size)
    assert decoded.shape == (image_size, image_size, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, _reference_pil_squash(path, image_size))
    # torch rounds once, Pillow after each of its two passes
    assert np.abs(decoded - _reference_torch_squash(path, image_size)).max() <= 1.6


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 24))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_center_crop_is_torchvisions(
    tmp_path: Path, write_image: WriteImage, width: int, height: int, image_size: int
) -> None:
    path = write_image(tmp_path / "a.png", size=(width, height))
    decoded = decode_image(path, image_size, "center_crop")
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(image_size),  # bilinear by default
            torchvision.transforms.CenterCrop(image_size),
        ]
    )
    with Image.open(path) as image:
        np.testing.assert_array_equal(decoded, np.asarray(transform(image)))


@given(st.integers(1, 40), st.integers(1, 24))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_square_image_is_the_same_by_every_method(
    tmp_path: Path, write_image: WriteImage, side: int, image_size: int
) -> None:
    path = write_image(tmp_path / "a.png", size=(side, side))
    squashed, cropped = (decode_image(path, image_size, method) for method in RESIZE_METHODS)
    np.testing.assert_array_equal(squashed, cropped)


def test_center_crop_keeps_the_middle_and_its_proportions(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, :15, 0] = 255  # red, ten columns of black, blue
    pixels[:, 25:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode_image(tmp_path / "wide.png", 10, "center_crop") == 0).all()


def test_squash_keeps_what_a_crop_would_lose(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, :10, 0] = 255  # the left quarter is red, the right quarter is blue
    pixels[:, 30:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    decoded = decode_image(tmp_path / "wide.png", 8)
    assert (decoded[:, 0, 0] > 250).all()
    assert (decoded[:, -1, 2] > 250).all()
    assert (decoded[:, 3:5] == 0).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"])
def test_formats_decode_as_pil_does(tmp_path: Path, write_image: WriteImage, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(decode_image(path, 9), _reference_pil_squash(path, 9))


def test_greyscale_becomes_three_equal_channels(tmp_path: Path, write_image: WriteImage) -> None:
    decoded = decode_image(write_image(tmp_path / "grey.JPEG", mode="L"), 8)
    assert decoded.shape == (8, 8, 3)
    assert (decoded == decoded[..., :1]).all()
    assert decoded.std() > 0


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (12, 12), (0, 255, 255, 0)).save(tmp_path / "red.JPEG")
    assert np.abs(decode_image(tmp_path / "red.JPEG", 4).astype(int) - (255, 0, 0)).max() <= 3


def test_transparency_is_dropped_without_a_warning(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 200, 30, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.save(tmp_path / "palette.png", transparency=b"\x80\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("clear.png", "palette.png"):
            assert (decode_image(tmp_path / name, 4) == (10, 200, 30)).all()


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decode_image(tmp_path / "a.gif", 3)[..., 0] > 240).all()


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90 degrees to show"
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    decoded = decode_image(tmp_path / "a.jpg", 16)
    assert decoded[:, :7].min() > 200
    assert decoded[:, 9:].max() < 50


@pytest.mark.parametrize("mode", ["I;16", "F", "I"])
def test_more_than_eight_bits_are_refused_not_clipped(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).convert(mode).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="8 bits"):
        decode_image(tmp_path / "deep.tif", 4)


def test_decode_files_fills_rows_in_order(tmp_path: Path, write_image: WriteImage) -> None:
    paths = [write_image(tmp_path / f"{seed}.png", seed=seed) for seed in range(30)]
    out = np.zeros((30, 5, 5, 3), np.uint8)
    calls: list[tuple[str, int, int]] = []
    assert decode_files(paths, out, "decoding", lambda *call: calls.append(call)) == []
    for row, path in enumerate(paths):
        np.testing.assert_array_equal(out[row], decode_image(path, 5))
    assert calls[-1] == ("decoding", 30, 30)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_every_bad_file_is_reported_with_its_reason(tmp_path: Path, write_image: WriteImage) -> None:
    good = write_image(tmp_path / "good.jpg", size=(60, 60))
    bad = {
        "empty": b"",
        "text": b"not an image",
        "cut": good.read_bytes()[:-200],
        "head": b"\xff\xd8\xff\xe0",
    }
    for name, content in bad.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    paths = [good, *(tmp_path / f"{name}.jpg" for name in bad), tmp_path / "absent.jpg"]
    problems = unreadable(paths, silent)
    assert len(problems) == 5
    for problem, path in zip(problems, paths[1:], strict=True):
        assert str(path) in problem
    reasons = ["empty (0 bytes)", "not an image", "truncated", "not an image", "No such file"]
    for problem, reason in zip(problems, reasons, strict=True):
        assert reason in problem


def test_a_process_that_accepts_cut_files_is_refused(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.jpg", size=(60, 60))
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decode_image(path, 8)  # Pillow fills the rest with grey and says nothing
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES"):
        unreadable([path], silent)


def test_decoder_version_names_pillow() -> None:
    assert f"Pillow {PIL.__version__}" in decoder_version()
