"""Images to pixels, RGB and square, by PIL's bilinear filter; without transparency, of the first frame."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, features

from ablate.data.dataset import Images
from ablate.data.source import Original, Request
from ablate.errors import DataError, beyond

RESIZE_METHODS = {
    "squash": "PIL bilinear, squashed to a square",
    "center_crop": "PIL bilinear, shorter side to the size, central square",
}
"""Ways to make an image square, and what each does; the description is part of what names a cached copy."""

# Decoders that only read pixels. Pillow's others include one that starts a program (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
# Pillow clips the 16-bit and floating-point modes at 255 on the way to RGB instead of scaling them.
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_THREADS = 8


def decoder_version() -> str:
    """Return the versions that decoded pixels may depend on."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {PIL.__version__}, libjpeg {jpeg}"


def decode_image(
    original: Original, image_size: int, method: str = "squash", *, upright: bool = True
) -> Images:
    """Return an original's pixels as uint8 [image_size, image_size, 3]; what cannot be read raises anything.

    A file's format is told from its content; `upright` turns it as its EXIF orientation says. `center_crop`
    rounds as torchvision's `Resize` and `CenterCrop` do.
    """
    original = original() if callable(original) else original
    if isinstance(original, Path):
        with Image.open(original, formats=_FORMATS) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise ValueError(f"mode {image.mode!r} is not of 8 bits per channel; convert it to 8 bits")
            image.load()
            if upright:
                with contextlib.suppress(Exception):  # damaged EXIF data hide no pixel
                    ImageOps.exif_transpose(image, in_place=True)
            # by way of RGBA: the same colours, without Pillow's warning about palettes
            opaque = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
            rgb = opaque.convert("RGB")
    else:
        rgb = Image.fromarray(original).convert("RGB")
    if fault := beyond("times as long as it is wide, of an image", max(rgb.size) / min(rgb.size)):
        raise ValueError(f"{rgb.width} x {rgb.height} pixels: {fault}")
    width = height = image_size
    if method == "center_crop":
        width, height = (image_size * side // min(rgb.size) for side in rgb.size)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    return np.asarray(rgb)[top : top + image_size, left : left + image_size]


def decode_all(
    originals: Sequence[Original], out: Images, stage: str, request: Request, *, upright: bool = True
) -> list[str]:
    """Decode N originals into `out`, uint8 [N, H, H, 3]; a line for each file that cannot be, its row any."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on: cut files would turn grey; switch it off")

    def decode_row(row: int) -> str | None:
        original = originals[row]
        try:
            out[row] = decode_image(original, out.shape[1], request.resize, upright=upright)
            return None
        except Exception as error:  # Pillow's plugins raise many kinds on corrupt bytes: a bad file each
            reason = str(error) or type(error).__name__
            if isinstance(error, PIL.UnidentifiedImageError) and isinstance(original, Path):
                known = f"not an image of a known format ({', '.join(_FORMATS)})"
                reason = known if original.stat().st_size else "empty (0 bytes)"
        return f"{str(original)!r}: {reason}"

    problems = []
    every = max(1, len(originals) // 100)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for done, problem in enumerate(pool.map(decode_row, range(len(originals))), 1):
            if problem:
                problems.append(problem)
            if done % every == 0 or done == len(originals):
                request.progress(stage, done, len(originals))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt should not wait for thousands of files
    return problems
