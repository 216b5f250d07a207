"""Parts of a recipe, each with its value when off, as one factor of named levels: without each, only each."""

from collections.abc import Mapping
from typing import Literal

from ablate.study.fields import Levels

PART, ALL, NONE = "part", "all parts", "no parts"
"""The factor, and its two ends: nothing is off, everything is."""
Design = Literal["without", "only", "both"]
Ends = dict[str, tuple[str, ...]]
BASELINES = {"without": ALL, "only": NONE, "both": ALL}


def part_levels(parts: Mapping[str, Levels], design: str) -> tuple[dict[str, Levels], Ends]:
    """The factor's levels with the fields that they set, and the ends of each; twins are one of two names."""
    off: Levels = {}
    for part, fields in parts.items():
        for name, value in fields.items():
            if off.setdefault(name, value) != value:
                raise ValueError(f"parts.{part}: {name} is off at {off[name]!r} elsewhere, not {value!r}")
    # Each arm's name, what it sets, and the end that it is compared with.
    found = [(ALL, Levels(), ""), (NONE, off, ALL if design == "both" else "")]
    found += [(f"without {part}", fields, ALL) for part, fields in parts.items()]
    for part, fields in parts.items():
        found.append((f"only {part}", {name: off[name] for name in off if name not in fields}, NONE))
    left_out = {"without": NONE, "only": ALL}.get(design)
    found = [arm for arm in found if left_out not in (arm[0], arm[2])]
    levels, ends = dict[str, Levels](), Ends()
    for name, fields, end in found:
        twin = next((known for known, own in levels.items() if own == fields), None)
        if twin is None:
            levels[name], ends[name] = fields, (end,) if end else ()
        elif twin not in (ALL, NONE):
            both = f"{twin} ({name})"
            levels[both], ends[both] = levels.pop(twin), (end, *ends.pop(twin))
    return levels, ends
