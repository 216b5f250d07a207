"""`imagenette-160`, `imagenette-320`, `imagenette`, `imagewoof-160`, `imagewoof-320`, `imagewoof`.

Version 2 of both, ten classes of ImageNet each: 9,469 + 3,925 and 9,025 + 3,929 images, whose shorter side
has 160 or 320 px or the full size. The images and their names are the same at every size.

A CSV of wrong labels comes with them: `path`, `noisy_labels_1`, `_5`, `_25`, `_50` (WordNet ids at so many
per cent of wrong labels). The lists were drawn one by one; the images of `val` keep their labels.

References:
    Howard 2019, https://github.com/fastai/imagenette, counts of the list there, wrong labels of Abraham 2020;
    sizes https://github.com/fastai/fastai/blob/main/fastai/data/checks.txt; Imagenette's SHA-256
    https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/datasets/imagenette/checksums.tsv;
    of Imagewoof, packed anew in 2021, only MD5 is published:
    https://github.com/catalyst-team/catalyst/blob/master/catalyst/contrib/datasets/imagewoof.py
"""

import contextlib
import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.data.dataset import Channels, ListedNoise, array_digest
from ablate.data.fetch import Archive, unpacked
from ablate.data.folder import ImageFile, Tree, list_tree
from ablate.data.source import Contents, Part, Request, Source

NOISE_COLUMNS = {fraction: f"noisy_labels_{round(100 * fraction)}" for fraction in (0.01, 0.05, 0.25, 0.5)}


@dataclass(frozen=True)
class Family:
    """Ten classes of ImageNet as fast.ai packs them: `train/WNID/*.JPEG`, `val/WNID/*.JPEG`, wrong labels."""

    title: str
    classes: Mapping[str, tuple[str, int, int]]
    """Of each WordNet id, sorted: its name for people, its number of images in `train`, in `val`."""
    names_sha256: str
    """Of the files' names (`train/n01440764/…`), sorted and joined by newlines."""
    noise_file: str
    noise_sha256: str
    """`array_digest` of the training images' wrong class ids, [4, N]: fractions ascending, images by path."""
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


SUBSETS: dict[str, Subset] = {}
for family, side, size, digest in (
    (IMAGENETTE, 160, 99_003_388, "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"),
    (IMAGENETTE, 320, 341_663_724, "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"),
    (IMAGENETTE, None, 1_557_161_267, "6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd"),
    (IMAGEWOOF, 160, 92_612_825, "3d200a7be99704a0d7509be2a9fbfe15"),
    (IMAGEWOOF, 320, 328_387_740, "0f46d997ec2264e97609196c95897a44"),
    (IMAGEWOOF, None, 1_343_715_595, "9aafe18bcdb1632c4249a76c458465ba"),
):
    name, of_size = family.title.lower(), f"-{side}" if side else ""
    folder = f"{name}2{of_size}"
    url = f"https://s3.amazonaws.com/fast-ai-imageclas/{folder}.tgz"
    SUBSETS[name + of_size] = Subset(family, side, Archive(url, size, digest, folder, ("train", "val")))


def locate(name: str, request: Request) -> Source:
    """Find a copy of the dataset and check that it is complete; download it when there is no `data_dir`."""
    subset = SUBSETS[name]
    family = subset.family
    root, remedy = unpacked(subset.archive, request)
    tree = list_tree(root, ("train", "val"))
    problems = []
    for place, (split, folders) in enumerate(tree.splits.items(), 1):
        unknown = folders.keys() - family.classes
        problems += [f"{f'{split}/{name}'!r}: not a class of {family.title}" for name in unknown]
        for wnid, facts in family.classes.items():
            if (found := len(folders.get(wnid, ()))) != facts[place]:
                problems.append(f"'{split}/{wnid}': expected {facts[place]} images, found {found}")
    names = "\n".join(sorted(file.name for file in tree.files()))
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    if not (tree.problems or problems) and digest != family.names_sha256:
        problems.append("the numbers of files are right, but some are not named as in the official archive")
    tree.problems += sorted(problems) + _size_problems(tree, subset.shorter_side)
    tree.check(remedy, request)
    listed = root / family.noise_file
    noise = ImageFile.of(listed.name, listed.stat()) if listed.exists() else None
    identity = {"images": tree.identity(), "noise": noise}
    return Source(name, name, identity, partial(_contents, tree, family, remedy))


def _size_problems(tree: Tree, shorter_side: int | None) -> list[str]:
    """Tell the archives of one family apart: most of one image of each class must have the size."""
    sides = []
    for files in filter(None, tree.splits["train"].values()):
        path = tree.root / files[0].name
        # corrupt bytes raise many kinds; decoding reports this file
        with contextlib.suppress(Exception), Image.open(path, formats=("JPEG", "PNG")) as image:
            sides.append(min(image.size))
    of_most = (side for side in (160, 320, shorter_side) if side and 2 * sides.count(side) > len(sides))
    if not sides or next(of_most, None) == shorter_side:
        return []
    wanted = f"expected images of {shorter_side or 'many'} px (shorter side)"
    return [f"{wanted}, but found {sorted({*sides})} px: is this the archive of another size?"]


def _contents(tree: Tree, family: Family, remedy: str) -> Contents:
    plain = tree.contents({wnid: name for wnid, (name, _, _) in family.classes.items()}, remedy)
    path = tree.root / family.noise_file
    try:
        noise = ListedNoise(tuple(NOISE_COLUMNS), _listed_labels(path, family, plain.train))
    except (OSError, ValueError, KeyError, csv.Error) as error:  # told once noise is asked for
        remedy = f"Put {path.name} of https://github.com/fastai/imagenette into {tree.root}, and run again."
        found = f"{type(error).__name__}: {error}"
        noise = ListedNoise(fault=f"label noise needs {path} as it was published; {found}. {remedy}")
    # As everybody has read these files, whatever orientation some may name.
    return replace(plain, normalisation=family.normalisation, noise=noise, upright=False)


def _listed_labels(path: Path, family: Family, train: Part) -> list[list[int]]:
    """Read N class ids of each fraction, the official wrong labels and no others."""
    ids = {wnid: label for label, wnid in enumerate(family.classes)}
    with path.open(encoding="utf-8", newline="") as file:
        by_path = {row["path"]: row for row in csv.DictReader(file)}
    listed = [[ids[by_path[name][column]] for name in train.names] for column in NOISE_COLUMNS.values()]
    ordered = np.array(listed, dtype=np.int64)[:, np.argsort(np.array(train.names))]
    if array_digest(np.ascontiguousarray(ordered)) != family.noise_sha256:
        raise ValueError("it is well-formed, but not the official list")
    return listed
