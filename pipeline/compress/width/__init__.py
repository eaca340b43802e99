"""A narrower residual stream: where it runs, and which of its features matter least. Nothing here loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.registry import Registry

if TYPE_CHECKING:
    from pipeline.compress.width.scores import Width

WIDTHS: Registry[Width] = Registry(
    "hidden_importance",
    {
        "l2": "pipeline.compress.width.scores:l2",
        "activation": "pipeline.compress.width.scores:activation",
        "random": "pipeline.compress.width.scores:random",
    },
    words="importance of hidden features",
    parts=("__call__",),
)
