"""Does ablate reproduce the run that it comes from?

The source's run: its network, 11 epochs of plain SGD at a learning rate of 0.4, ε = 0.1, Imagenette
squashed to 128 x 128, in float32 as then, over several seeds where the source has one. Each value of its
table is set beside the 95 % prediction interval of one more run of ours: is it inside? Expected: validation
accuracy after 11 epochs between 56 and 62 %, final training loss between 0.52 and 0.57.

Cost: six trainings of the source's network, half an hour to an hour on two CPU cores (cpu), seconds on a GPU
(full).

    python -m ablate run studies/seed_notebook.py --profile cpu
"""

from ablate import Profile, Published, Study

# epoch, train loss, train accuracy, valid loss (smoothed), valid accuracy, seconds
SOURCE_TABLE = (
    (0, 2.462852, 0.287781, 2.037728, 0.397197, 52),
    (1, 1.765944, 0.487063, 1.833645, 0.478217, 15),
    (2, 1.462188, 0.603337, 1.742753, 0.524586, 15),
    (3, 1.14892, 0.741261, 1.74317, 0.530446, 15),
    (4, 0.889892, 0.870314, 1.707937, 0.549809, 15),
    (5, 0.694859, 0.964093, 1.627807, 0.569682, 14),
    (6, 0.611935, 0.991974, 1.584033, 0.57707, 14),
    (7, 0.571244, 0.998838, 1.557704, 0.57707, 15),
    (8, 0.554448, 0.998838, 1.544945, 0.577325, 14),
    (9, 0.543389, 0.999789, 1.533487, 0.577834, 14),
    (10, 0.538632, 0.999894, 1.528113, 0.585223, 14),
)
COLUMNS = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")

study = Study(
    question="Does ablate reproduce the source notebook's run?",
    base={
        "data": "imagenette-160",
        "image_size": 128,
        "arch": "seed_cnn",
        "recipe": "source",
        "epsilon": 0.1,
        "precision": "float32",
    },
    primary="accuracy",
    seeds=6,
    profiles={
        "full": Profile(seeds=10),
        "cpu": Profile(),
        "quick": Profile(base={"data": "digits", "image_size": 8, "batch_size": 32, "lr": 0.1}),
    },
    published=Published(
        data="imagenette-160",
        source="the source notebook: label smoothing, fit(1) then fit(10), one run",
        epochs=tuple(dict(zip(COLUMNS, row, strict=True)) for row in SOURCE_TABLE),
        differences=(
            "What remains different: the machine, the libraries' versions, and the random numbers behind the "
            "initial weights and the order of images. The images too, where they are not those of the "
            "official archive (imagenette2-160.tgz, SHA-256 64d0c485…): an archive that ablate downloads is "
            "checked against it, a folder given with --data-dir only for the names and numbers of its files. "
            "In a copy that was encoded again, or made square before it is squashed, the pixels and the "
            "aspect ratios are not the source's."
        ),
    ),
)
