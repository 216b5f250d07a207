"""One image to pixels, and many of them in parallel.

Every image becomes RGB and square, by PIL's bilinear filter (which averages over the source area when it
shrinks). EXIF orientation is not applied, since the source did not apply it: a photograph that relies on the
tag stays as its pixels are stored. Transparency is dropped, and of an animation the first frame is taken.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from ablate.data.dataset import Images
from ablate.data.source import Request
from ablate.errors import DataError

RESIZE_METHODS = {
    "squash": "PIL bilinear, squashed to a square",
    "center_crop": "PIL bilinear, shorter side to the size, central square",
}
"""Ways to make an image square, and what each does; the description is part of what names a cached copy."""

# Decoders that only read pixels. Pillow's others include one that starts a program (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
# Pillow clips the 16-bit and floating-point modes at 255 on the way to RGB instead of scaling them.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})


def decoder_version() -> str:
    """Return the versions that decoded pixels may depend on."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"Pillow {PIL.__version__}, libjpeg {jpeg}"


def decode_image(path: Path, image_size: int, method: str = "squash") -> Images:
    """Decode one file to uint8 [image_size, image_size, 3].

    Greyscale, palette and CMYK files become RGB. The format is told from the content, not from the suffix.

    Raises:
        OSError: The file cannot be read, is cut short, or is not an image of a known format.
        ValueError: The image has more than 8 bits per channel.
    """
    with Image.open(path, formats=_FORMATS) as image:
        if image.mode not in _EIGHT_BIT_MODES:
            raise ValueError(f"mode {image.mode!r} does not have 8 bits per channel; convert it to 8 bits")
        # by way of RGBA: the same colours, without Pillow's warning about palettes
        opaque = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        return resize(opaque.convert("RGB"), image_size, method)


def resize(image: Image.Image, image_size: int, method: str = "squash") -> Images:
    """Make an RGB image uint8 [image_size, image_size, 3]; one that has the size is not touched.

    `squash`, the source's recipe, scales the sides by different factors and keeps all of the image;
    `center_crop` scales the shorter side to the size and cuts the square out of the middle, rounding as
    torchvision's `Resize` and `CenterCrop` do: the longer side is cut to whole pixels, and half a pixel of
    the margin goes to the even side. A square image is the same by both.
    """
    width = height = image_size
    if method == "center_crop":
        width, height = (image_size * side // min(image.size) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    return np.asarray(image)[top : top + image_size, left : left + image_size]


def resize_all(pixels: NDArray[np.uint8], out: Images, stage: str, request: Request) -> list[str]:
    """Resize images in memory, uint8 [N, H, W] or [N, H, W, 3], into `out`; else as `decode_files`."""
    for row, image in enumerate(pixels):
        out[row] = resize(Image.fromarray(image).convert("RGB"), out.shape[1], request.resize)
        if row % 1000 == 999 or row == len(pixels) - 1:
            request.progress(stage, row + 1, len(pixels))
    return []


def decode_files(paths: Sequence[Path], out: Images, stage: str, request: Request) -> list[str]:
    """Decode N files into the rows of `out`, uint8 [N, H, H, 3], such as a memory map.

    A few at a time, as Pillow releases the interpreter lock. The request's `progress` is told `stage` about a
    hundred times. Returns a line for each file that cannot be decoded; its row is not meaningful.

    Raises:
        DataError: Pillow was told, somewhere in this process, to accept files that are cut short.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on in this process, so a file that is cut short would be "
            "filled with grey unnoticed. Turn it off before preparing a dataset."
        )

    def decode_row(row: int) -> str | None:
        try:
            out[row] = decode_image(paths[row], out.shape[1], request.resize)
        except PIL.UnidentifiedImageError:
            empty = paths[row].stat().st_size == 0
            reason = "empty (0 bytes)" if empty else f"not an image of a known format ({', '.join(_FORMATS)})"
        except Exception as error:  # Pillow's plugins raise many kinds on corrupt bytes: a bad file each
            reason = str(error) or type(error).__name__
        else:
            return None
        return f"{str(paths[row])!r}: {reason}"

    problems = []
    every = max(1, len(paths) // 100)
    # what this process may use, not what the machine has
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(min(8, cpus))
    try:
        for done, problem in enumerate(pool.map(decode_row, range(len(paths))), 1):
            if problem:
                problems.append(problem)
            if done % every == 0 or done == len(paths):
                request.progress(stage, done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt should not wait for thousands of files
    return problems


def unreadable(paths: Sequence[Path], request: Request) -> list[str]:
    """Return one line for each file that cannot be decoded."""
    return decode_files(paths, np.empty((len(paths), 1, 1, 3), np.uint8), "checking files", request)
