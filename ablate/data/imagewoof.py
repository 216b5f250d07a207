"""`imagewoof-160`, `imagewoof-320`, `imagewoof`: Imagewoof v2, ten breeds of dogs; 9,025 + 3,929 images.

The shorter side has 160 or 320 px; `imagewoof` is the full size. The images and their names are the same ones
at every size. Channels are normalised by the training pixels' own mean and deviation.

References:
    Howard, "Imagewoof", 2019, https://github.com/fastai/imagenette, whose `noisy_imagewoof.csv` names every
    image of both splits: the counts below are its. The archives were packed anew in February 2021 to hold
    that file. Their sizes are those of fastai's own list, their MD5 digests those of Catalyst:
    https://github.com/fastai/fastai/blob/main/fastai/data/checks.txt,
    https://github.com/catalyst-team/catalyst/blob/master/catalyst/contrib/datasets/imagewoof.py. A SHA-256
    was found only of the smaller archives before (TensorFlow Datasets, pull request 1590).
"""

from ablate.data.download import RemoteFile
from ablate.data.imagenet_subset import ImageClass, Subset, locate_subset
from ablate.data.noise_list import NoiseList
from ablate.data.source import Request, Source

CLASSES = {
    "n02086240": ImageClass("Shih-Tzu", 941, 409),
    "n02087394": ImageClass("Rhodesian ridgeback", 942, 408),
    "n02088364": ImageClass("Beagle", 932, 418),
    "n02089973": ImageClass("English foxhound", 580, 224),
    "n02093754": ImageClass("Border terrier", 949, 401),
    "n02096294": ImageClass("Australian terrier", 943, 407),
    "n02099601": ImageClass("Golden retriever", 949, 401),
    "n02105641": ImageClass("Old English sheepdog", 928, 422),
    "n02111889": ImageClass("Samoyed", 921, 429),
    "n02115641": ImageClass("Dingo", 940, 410),
}


def _subset(folder: str, shorter_side: int | None, size: int, md5: str) -> Subset:
    return Subset(
        title="Imagewoof",
        remote=RemoteFile(f"https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz", size, md5, "md5"),
        folder=folder,
        shorter_side=shorter_side,
        classes=CLASSES,
        names_sha256="ff726a4f811c6a93befabe49752e5ed9f5607043195a028d8d6a14d3d4741b31",
        noise=NoiseList(
            file="noisy_imagewoof.csv",
            sha256="71352f9b4eaa283450b229c31e085bd589bccbddf4156428407ac3cd13a1a810",
            url="https://github.com/fastai/imagenette",
        ),
    )


SUBSETS = {
    "imagewoof-160": _subset("imagewoof2-160", 160, 92_612_825, "3d200a7be99704a0d7509be2a9fbfe15"),
    "imagewoof-320": _subset("imagewoof2-320", 320, 328_387_740, "0f46d997ec2264e97609196c95897a44"),
    "imagewoof": _subset("imagewoof2", None, 1_343_715_595, "9aafe18bcdb1632c4249a76c458465ba"),
}


def locate(name: str, request: Request) -> Source:
    """Find Imagewoof of one size, by its name in `SUBSETS`; see `locate_subset`."""
    return locate_subset(name, request, SUBSETS[name])
