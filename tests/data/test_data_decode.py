import warnings
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from small_data import make_request, refused, squashed, write_image
from torchvision import transforms

from ablate.data.decode import decode_all, decode_image, decoder_version

SIDES = (st.integers(1, 60), st.integers(1, 60), st.integers(1, 24))


@given(*SIDES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_squash_and_crop_are_pils_and_torchs(tmp_path: Path, width: int, height: int, side: int) -> None:
    path = write_image(tmp_path / "a.png", size=(width, height))
    whole, cropped = (decode_image(path, side, method) for method in ("squash", "center_crop"))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, squashed(path, side))
    crop = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None]
        torchs = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        # torch rounds once, Pillow after each of its two passes
        assert np.abs(whole - torchs[0].permute(1, 2, 0).numpy()).max() <= 1.6
        np.testing.assert_array_equal(cropped, np.asarray(crop(image)))
        np.testing.assert_array_equal(cropped, decode_image(np.asarray(image), side, "center_crop"))


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    grey = decode_image(write_image(tmp_path / "grey.JPEG", mode="L"), 8)
    assert (grey == grey[..., :1]).all()
    assert grey.std() > 0
    Image.new("CMYK", (12, 12), (0, 255, 255, 0)).save(tmp_path / "red.JPEG")
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "first is red.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=b"\x80\x00")
    with warnings.catch_warnings():  # transparency is dropped without one
        warnings.simplefilter("error")
        for name in ("red.JPEG", "first is red.gif", "clear.png", "palette.png"):
            assert np.abs(decode_image(tmp_path / name, 4).astype(int) - (255, 0, 0)).max() <= 3
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90 degrees to show", which is not done
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=100)
    decoded = decode_image(tmp_path / "a.jpg", 16)
    assert decoded[:, :7].min() > 200 > 50 > decoded[:, 9:].max()


def test_every_bad_file_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_image(tmp_path / "good.jpg", size=(60, 60))
    bad: dict[str, tuple[bytes | None, str]] = {
        "empty": (b"", "empty (0 bytes)"),
        "text": (b"not an image", "not an image of a known format (JPEG, PNG, BMP, WEBP, TIFF, GIF)"),
        "cut": (good.read_bytes()[:-200], "truncated"),
        "head": (b"\xff\xd8\xff\xe0", "not an image"),
        "absent": (None, "No such file"),
    }
    for name, (content, _) in bad.items():
        if content is not None:
            (tmp_path / f"{name}.jpg").write_bytes(content)
    for mode in ("I;16", "F", "I"):  # refused, not clipped
        deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16)).convert(mode)
        deep.save(tmp_path / f"{mode}.jpg", format="TIFF")
        bad[mode] = None, "not of 8 bits"
    paths = [good, *(tmp_path / f"{name}.jpg" for name in bad)]
    rest = np.empty((9, 1, 1, 3), np.uint8), "checking", make_request(tmp_path)
    for problem, path, (_, reason) in zip(decode_all(paths, *rest), paths[1:], bad.values(), strict=True):
        assert str(path) in problem
        assert reason in problem
    assert f"Pillow {PIL.__version__}" in decoder_version()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decode_image(tmp_path / "cut.jpg", 8)  # Pillow fills the rest with grey and says nothing
    assert "LOAD_TRUNCATED_IMAGES" in refused(decode_all, [good], *rest)
