"""Parts of a recipe, each with its value when off, as one factor of named levels: without each, only each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ablate.study.fields import Levels

PART, ALL, NONE = "part", "all parts", "no parts"
"""The factor, and its two ends: nothing is off, everything is."""
Design = Literal["without", "only", "both"]
BASELINES = {"without": ALL, "only": NONE, "both": ALL}


def off_values(parts: Mapping[str, Any]) -> dict[str, Levels]:
    """Each part as the fields that switch it off; a value on its own is that of the field of its name."""
    return {name: dict(off) if isinstance(off, Mapping) else {name: off} for name, off in parts.items()}


def part_levels(
    parts: Mapping[str, Levels], design: str
) -> tuple[dict[str, Levels], dict[str, tuple[str, ...]]]:
    """The factor's levels with the fields that they set, and the ends that each is compared with.

    Without one part may be only the other: such an arm is trained once, has both names and both comparisons.
    """
    off = {name: value for fields in parts.values() for name, value in fields.items()}
    found: list[tuple[str, Levels, str]] = []
    if design != "only":
        found += [(ALL, {}, ""), *((f"without {part}", fields, ALL) for part, fields in parts.items())]
    if design != "without":
        found.append((NONE, off, ALL if design == "both" else ""))
        for part, fields in parts.items():
            others = {name: value for name, value in off.items() if name not in fields}
            found.append((f"only {part}", others, NONE))
    levels, ends = dict[str, Levels](), dict[str, tuple[str, ...]]()
    for name, fields, end in sorted(found, key=lambda one: one[0] not in (ALL, NONE)):
        twin = next((known for known, own in levels.items() if own == fields), None)
        if twin is None:
            levels[name], ends[name] = fields, (end,) if end else ()
        elif twin not in (ALL, NONE):
            both = f"{twin} ({name})"
            levels[both], ends[both] = levels.pop(twin), (end, *ends.pop(twin))
    return levels, ends


def part_faults(parts: Mapping[str, Levels], base: Mapping[str, Any]) -> Iterator[str]:
    """Faults of parts beside the values that fields have when all of them are on."""
    known: Levels = {}
    for part, off in parts.items():
        if not off:
            yield f"parts.{part}: expected its value when off, or fields with theirs, but none came"
        for name, value in off.items():
            if known.setdefault(name, value) != value:
                yield f"parts.{part}: {name} is off at {known[name]!r} in another part; off is one value"
            elif name in base and base[name] == value:
                yield (
                    f"parts.{part}: base has it off already ({name}={value!r}); set {name} in base to the "
                    "value that it has when on"
                )
