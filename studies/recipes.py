"""How much does a modern recipe give over the source's at the same number of epochs?

The source trains with plain SGD at a constant rate and shows every image as it is; `modern` uses AdamW with a
one-cycle rate, decay on weight matrices only, random crops and flips. Same network, same epochs, same images.
Expected: `modern` well above `source` in accuracy. Ten seeds have a chance of 62 % to show the two equivalent
within 2 points and of 81 % to find 2 points, if accuracy varies by 1.4 points from seed to seed as in
seed_notebook; two seeds show a gap of ten points or more.

Cost: 20 trainings on one GPU (full), 4 of xresnet18 at 64 px on two CPU cores (cpu: about half an hour), or
10 small ones on scikit-learn's digits (quick: a minute), where crops of 8 px digits may not help.

    python -m ablate run studies/recipes.py --profile cpu
"""

from ablate import Profile, Study

study = Study(
    question="How much does the modern recipe give over the source's at the same epochs?",
    base={
        "data": "imagenette-160",
        "image_size": 128,
        "decode_size": 160,
        "arch": "xresnet18",
        "epochs": 11,
        "epsilon": 0.1,
    },
    factors={"recipe": ("source", "modern")},
    baseline={"recipe": "source"},
    primary="accuracy",
    margins={"accuracy": 0.02},
    seeds=10,
    profiles={
        "full": Profile(),
        "cpu": Profile(base={"image_size": 64, "decode_size": 80, "epochs": 5}, seeds=2),
        "quick": Profile(
            base={
                "data": "digits",
                "image_size": 8,
                "decode_size": 0,
                "arch": "seed_cnn",
                "batch_size": 32,
                "flip": False,
            },
            seeds=5,
        ),
    },
)
