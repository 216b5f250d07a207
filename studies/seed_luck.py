"""How far apart do runs end that differ in nothing but their seed?

One arm, the source's network at the usual ε = 0.1, trained with many seeds. What its runs spread by is what
any difference between two settings has to be told from.
Expected: a point or more of accuracy between the luckiest and the unluckiest run.

Cost: 30 trainings on one GPU (full), 30 of 5 epochs at 64 px on two CPU cores (small: about an hour), or 30
small ones on scikit-learn's digits (quick: a minute).

    python -m ablate run studies/seed_luck.py
"""

from ablate import Profile, Study

study = Study(
    question="How far apart do runs end that differ in nothing but their seed?",
    base={
        "data": "imagenette-160",
        "image_size": 128,
        "arch": "seed_cnn",
        "recipe": "source",
        "epsilon": 0.1,
    },
    seeds=30,
    profiles={
        "full": Profile(),
        "small": Profile(base={"image_size": 64, "epochs": 5}),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 15, "batch_size": 32, "lr": 0.1},
        ),
    },
)
