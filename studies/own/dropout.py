"""Does dropout help a network from outside, and does it still with label smoothing?

Two knobs, one of them an argument of the network in `nets.py`; each is asked about along its whole range.
"""

from nets import SmallNet

from ablate import Study

study = Study(
    question="What does dropout do to my network, with and without label smoothing?",
    base={"data": "digits", "image_size": 8, "arch": SmallNet, "arch.width": 8, "epochs": 20, "lr": 0.2},
    factors={"arch.dropout": (0.0, 0.1, 0.3), "epsilon": (0.0, 0.1)},
    baseline={"arch.dropout": 0.0, "epsilon": 0.0},
    comparisons=("trend",),
    seeds=5,
)
