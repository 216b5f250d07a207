"""`imagenette-160`, `imagenette-320`, `imagenette`: Imagenette v2, ten classes; 9,469 + 3,925 images.

The shorter side has 160 or 320 px; `imagenette` is the full size. The images and their names are the same
ones at every size.

References:
    Howard, "Imagenette", 2019, https://github.com/fastai/imagenette, whose `noisy_imagenette.csv` names every
    image. The archives' digests and sizes are those that TensorFlow Datasets records, the sizes also those of
    fastai's own list:
    https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/datasets/imagenette/checksums.tsv,
    https://github.com/fastai/fastai/blob/main/fastai/data/checks.txt.
"""

from ablate.data.download import RemoteFile
from ablate.data.imagenet_subset import ImageClass, Subset, locate_subset
from ablate.data.noise_list import NoiseList
from ablate.data.source import Request, Source

CLASSES = {
    "n01440764": ImageClass("tench", 963, 387),
    "n02102040": ImageClass("English springer", 955, 395),
    "n02979186": ImageClass("cassette player", 993, 357),
    "n03000684": ImageClass("chain saw", 858, 386),
    "n03028079": ImageClass("church", 941, 409),
    "n03394916": ImageClass("French horn", 956, 394),
    "n03417042": ImageClass("garbage truck", 961, 389),
    "n03425413": ImageClass("gas pump", 931, 419),
    "n03445777": ImageClass("golf ball", 951, 399),
    "n03888257": ImageClass("parachute", 960, 390),
}


def _subset(folder: str, shorter_side: int | None, size: int, sha256: str) -> Subset:
    return Subset(
        title="Imagenette",
        remote=RemoteFile(f"https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz", size, sha256),
        folder=folder,
        shorter_side=shorter_side,
        classes=CLASSES,
        names_sha256="1d3b7e4e6d4af6b70a59b3a3dbeb85b33a623ea7039c536dbade63e771d028b1",
        noise=NoiseList(
            file="noisy_imagenette.csv",
            sha256="f9f1e2bccbadc53f79d61ce48935b9ffe811a66ade259b220a1ea0d1c4101ac9",
            url="https://github.com/fastai/imagenette",
        ),
        normalisation=((0.47, 0.48, 0.45), (0.29, 0.28, 0.30)),  # the source's recipe
    )


SUBSETS = {
    "imagenette-160": _subset(
        "imagenette2-160",
        160,
        99_003_388,
        "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
    ),
    "imagenette-320": _subset(
        "imagenette2-320",
        320,
        341_663_724,
        "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c",
    ),
    "imagenette": _subset(
        "imagenette2",
        None,
        1_557_161_267,
        "6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd",
    ),
}


def locate(name: str, request: Request) -> Source:
    """Find Imagenette of one size, by its name in `SUBSETS`; see `locate_subset`."""
    return locate_subset(name, request, SUBSETS[name])
