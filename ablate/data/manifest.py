"""What is published of the datasets that are downloaded: where they are, their digests, what they hold.

References:
    Howard, "Imagenette" and "Imagewoof", 2019, https://github.com/fastai/imagenette; the counts are those of
    `noisy_imagenette.csv` and `noisy_imagewoof.csv`, which name every image. The archives' sizes are those of
    https://github.com/fastai/fastai/blob/main/fastai/data/checks.txt. Imagenette's SHA-256 digests:
    https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/datasets/imagenette/checksums.tsv.
    Imagewoof was packed anew in February 2021, to hold its list of wrong labels, and since then only MD5 has
    been published:
    https://github.com/catalyst-team/catalyst/blob/master/catalyst/contrib/datasets/imagewoof.py.
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html; its archive's SHA-256:
    https://github.com/keras-team/keras/blob/master/keras/src/datasets/cifar10.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ablate.data.dataset import Channels


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive to download.

    Attributes:
        url: where it is.
        size: in bytes.
        digest: its SHA-256, or its MD5 (32 digits) where no SHA-256 was ever published: that shows damage,
            and not a second file that its maker made to have the same digest.
        folder: the one folder in it.
        contents: names of the folder's entries that tell a copy of it, for messages too.
        files: pattern of the names below the folder of all files that may be in it.
    """

    url: str
    size: int
    digest: str
    folder: str
    contents: tuple[str, ...]
    files: str


@dataclass(frozen=True)
class Family:
    """Ten classes of ImageNet as fast.ai packs them: `train/WNID/*.JPEG`, `val/WNID/*.JPEG`, wrong labels.

    Attributes:
        title: its name for people.
        classes: of each WordNet id, sorted: its name for people, its number of images in `train`, in `val`.
        names_sha256: SHA-256 of the files' names (`train/n01440764/…`), sorted and joined by newlines.
        noise_file: the CSV of wrong labels beside `train` and `val`.
        noise_sha256: SHA-256 of the class ids that it gives the training images, int64 [4, N], as
            `array_digest` takes it: fractions ascending, images sorted by path.
        normalisation: mean and std of the channels where 255 is 1; None computes them.
    """

    title: str
    classes: Mapping[str, tuple[str, int, int]]
    names_sha256: str
    noise_file: str
    noise_sha256: str
    normalisation: tuple[Channels, Channels] | None = None


@dataclass(frozen=True)
class Subset:
    """A family at one size: the shorter side of nearly all images, in pixels, or None at full size."""

    family: Family
    shorter_side: int | None
    archive: Archive


IMAGENETTE = Family(
    title="Imagenette",
    classes={
        "n01440764": ("tench", 963, 387),
        "n02102040": ("English springer", 955, 395),
        "n02979186": ("cassette player", 993, 357),
        "n03000684": ("chain saw", 858, 386),
        "n03028079": ("church", 941, 409),
        "n03394916": ("French horn", 956, 394),
        "n03417042": ("garbage truck", 961, 389),
        "n03425413": ("gas pump", 931, 419),
        "n03445777": ("golf ball", 951, 399),
        "n03888257": ("parachute", 960, 390),
    },
    names_sha256="1d3b7e4e6d4af6b70a59b3a3dbeb85b33a623ea7039c536dbade63e771d028b1",
    noise_file="noisy_imagenette.csv",
    noise_sha256="f9f1e2bccbadc53f79d61ce48935b9ffe811a66ade259b220a1ea0d1c4101ac9",
    normalisation=((0.47, 0.48, 0.45), (0.29, 0.28, 0.30)),  # the source's recipe
)

IMAGEWOOF = Family(
    title="Imagewoof",
    classes={
        "n02086240": ("Shih-Tzu", 941, 409),
        "n02087394": ("Rhodesian ridgeback", 942, 408),
        "n02088364": ("Beagle", 932, 418),
        "n02089973": ("English foxhound", 580, 224),
        "n02093754": ("Border terrier", 949, 401),
        "n02096294": ("Australian terrier", 943, 407),
        "n02099601": ("Golden retriever", 949, 401),
        "n02105641": ("Old English sheepdog", 928, 422),
        "n02111889": ("Samoyed", 921, 429),
        "n02115641": ("Dingo", 940, 410),
    },
    names_sha256="ff726a4f811c6a93befabe49752e5ed9f5607043195a028d8d6a14d3d4741b31",
    noise_file="noisy_imagewoof.csv",
    noise_sha256="71352f9b4eaa283450b229c31e085bd589bccbddf4156428407ac3cd13a1a810",
)


def _subset(family: Family, shorter_side: int | None, size: int, digest: str) -> Subset:
    folder = f"{family.title.lower()}2" + (f"-{shorter_side}" if shorter_side else "")
    archive = Archive(
        url=f"https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz",
        size=size,
        digest=digest,
        folder=folder,
        contents=("train", "val"),
        files=rf"(train|val)/n\d{{8}}/[\w.-]+\.JPEG|{family.noise_file}",
    )
    return Subset(family, shorter_side, archive)


SUBSETS = {
    "imagenette-160": _subset(
        IMAGENETTE, 160, 99_003_388, "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"
    ),
    "imagenette-320": _subset(
        IMAGENETTE, 320, 341_663_724, "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"
    ),
    "imagenette": _subset(
        IMAGENETTE, None, 1_557_161_267, "6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd"
    ),
    "imagewoof-160": _subset(IMAGEWOOF, 160, 92_612_825, "3d200a7be99704a0d7509be2a9fbfe15"),
    "imagewoof-320": _subset(IMAGEWOOF, 320, 328_387_740, "0f46d997ec2264e97609196c95897a44"),
    "imagewoof": _subset(IMAGEWOOF, None, 1_343_715_595, "9aafe18bcdb1632c4249a76c458465ba"),
}

_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
CIFAR10 = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    contents=_BATCHES,
    files=r"data_batch_[1-5]|test_batch|batches\.meta|readme\.html",
)

ARCHIVES = {**{name: subset.archive for name, subset in SUBSETS.items()}, "cifar10": CIFAR10}
"""Archive of each dataset that is downloaded."""
