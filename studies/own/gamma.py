"""Does a focal loss calibrate, for a small and for a wide network at the rate of each?

`gamma` is an argument of the loss in `nets.py`; a network and its rate are one named level.
"""

from nets import SmallNet, focal

from ablate import Study

study = Study(
    question="What does gamma do to calibration?",
    base={"data": "digits", "image_size": 8, "arch": SmallNet, "loss": focal, "epochs": 20},
    factors={
        "loss.gamma": (0.0, 1.0, 2.0),
        "net": {"small": {"arch.width": 8, "lr": 0.2}, "wide": {"arch.width": 32, "lr": 0.1}},
    },
    baseline={"loss.gamma": 0.0, "net": "small"},
    comparisons=({"loss.gamma": 2.0},),
    primary="ece",
    seeds=5,
)
