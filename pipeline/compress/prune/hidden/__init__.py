"""A narrower residual stream: where it runs, and which of its features matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.prune.hidden.scores import Width

WIDTHS: Registry[Width] = Registry(
    "hidden_importance",
    {
        "l2": "pipeline.compress.prune.hidden.scores:l2",
        "activation": "pipeline.compress.prune.hidden.scores:activation",
        "random": "pipeline.compress.prune.hidden.scores:random",
    },
    words="importance of hidden features",
    parts=("__call__",),
)
