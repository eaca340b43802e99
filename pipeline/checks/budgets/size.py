"""The budget on a bundle's size."""

from __future__ import annotations

from pipeline.checks.budgets.metric import Explained, Metric, Outcome, Tolerance
from pipeline.checks.explain import SHOWN, sizes_in_other_formats
from pipeline.checks.measurements import Measurements
from pipeline.core.types import computed

NOISE = Tolerance(share=0.01)


def _bundle(found: Measurements) -> Outcome:
    return computed(found.megabytes, "MB", "all files of the bundle")


def _explain(limit: float, found: Measurements) -> Explained:
    largest = tuple(
        f"{group.name} ({group.dtype}): {group.megabytes:.2f} MB, {group.share:.0%}"
        for group in found.records.tensors[:SHOWN]
    )
    return largest, _smaller_formats(limit, found)


def _smaller_formats(limit: float, found: Measurements) -> str:
    """What other formats would come to, computed from the stored weights."""
    estimates = sizes_in_other_formats(found)
    fitting = [(name, size) for name, size in estimates.items() if size <= limit]
    if fitting:
        name, size = fitting[0]
        return f"{name} would bring it to about {size:.1f} MB."
    smaller = {name: size for name, size in estimates.items() if size < found.megabytes}
    said = ""
    if smaller:
        name = min(smaller, key=lambda option: smaller[option])
        said = f" (the smallest, {name}, comes to about {smaller[name]:.1f} MB)"
    others = "prune, or choose a smaller model" if found.takes_passes else "choose a smaller model"
    return f"No format reaches {limit:g} MB alone{said}: {others}."


BUNDLE = Metric("MB", "at most", "size of all files of the bundle on disk", _bundle, _explain, NOISE)
