"""ε, reduction and architecture at once: which of them matter, and does one change what another does?

All combinations, every one with the same seeds, under matched steps. Main effects are averaged over the other
factors; an interaction is how much an effect changes from one level of another factor to the next. The
reductions are the built-in check: with matched steps they are the same mathematics, so their effects and
their interactions must be none, to the last bit on a CPU.

All main effects and interactions are asked about. An interaction of ε and architecture varies twice as much
as a run, whose accuracy varies by 1.4 points (six runs of seed_notebook; the reductions add nothing where
they are the same), so that full has a chance of 55 % to show one within 2.5 points. With three seeds or fewer
only the built-in check is decided, as its predictions are identical.

Cost: 378 trainings on one GPU (full), 24 on two CPU cores (cpu: hours), 54 of 5 epochs at 64 px there (small:
an hour), or 36 small ones on scikit-learn's digits (quick: a few minutes).

    python -m ablate run studies/factorial.py
"""

from ablate import Profile, Study

study = Study(
    question="Does the effect of label smoothing depend on the reduction, or on the architecture?",
    base={
        "data": "imagenette-160",
        "image_size": 128,
        "recipe": "source",
        "lr_rule": "matched",
        "drop_last": True,
    },
    factors={
        "epsilon": (0.0, 0.1, 0.3),
        "reduction": ("mean", "sum", "none"),
        "arch": ("seed_cnn", "xresnet18"),
    },
    baseline={"epsilon": 0.0},
    comparisons=("main", "interaction"),
    primary="accuracy",
    margins={"accuracy": 0.025},
    seeds=21,
    profiles={
        "full": Profile(),
        "cpu": Profile(base={"image_size": 64, "epochs": 5}, factors={"epsilon": (0.0, 0.1)}, seeds=2),
        "small": Profile(base={"image_size": 64, "epochs": 5}, seeds=3),
        "quick": Profile(
            base={"data": "digits", "image_size": 8, "epochs": 10, "batch_size": 32, "lr": 0.1},
            factors={"epsilon": (0.0, 0.1)},
            seeds=3,
        ),
    },
)
