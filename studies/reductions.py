"""What does the reduction of the loss do, with the learning rate left alone and with it matched?

A summed loss has the batch size in its gradient: at an unchanged learning rate that is a rate 128 times as
high (32 times in quick). Matched, the step is divided by the batch's true size, and `sum` is `mean` again, as
`none` averaged by the loop is. Batches are whole and their size is a power of two, so that on a CPU the three
give the same weights to the last bit; the report says which arms gave identical predictions.
Expected: `mean` and `none` identical under either rule, matched `sum` identical with them on a CPU and within
seed noise on a GPU, unmatched `sum` far below or diverged.

Each arm is asked about. On a CPU those that are the same are so to the last bit, whatever the seeds; on a
GPU, with accuracy that varies by 1.4 points from seed to seed (six runs of seed_notebook), full has a chance
of 89 % to show them equivalent within 2 points.

Cost: 120 trainings on one GPU (full), 18 on Imagenette on two CPU cores (cpu: hours), or 18 small ones on
scikit-learn's digits (quick: a minute).

    python -m ablate run studies/reductions.py
"""

from ablate import Profile, Study

study = Study(
    question="What do the loss's reductions do to training, with the learning rate fixed and matched?",
    base={
        "data": "imagenette-160",
        "image_size": 128,
        "arch": "seed_cnn",
        "recipe": "source",
        "drop_last": True,
    },
    factors={"reduction": ("mean", "sum", "none"), "lr_rule": ("fixed", "matched")},
    baseline={"reduction": "mean"},
    primary="accuracy",
    margins={"accuracy": 0.02},
    seeds=20,
    profiles={
        "full": Profile(),
        "cpu": Profile(seeds=3),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 15, "batch_size": 32, "lr": 0.1}, seeds=3
        ),
    },
)
