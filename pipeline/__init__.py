"""edge-pipeline: (model, target, recipe) -> a bundle that an app can load, and a verdict with evidence."""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import check, export
    from pipeline.bundle.verify import verify
    from pipeline.comparison.compare import compare
    from pipeline.config.loading import load_recipe, load_target

# ONNX Runtime reports sessions, model names and hashes to its maker unless this is set before it loads (its Privacy.md;
# on by default on Linux since 1.29); so does the hub client with its downloads. Nothing here phones home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

try:
    __version__ = version("edge-pipeline")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0+unknown"

__all__ = ["check", "compare", "export", "load_recipe", "load_target", "verify"]

_HOMES = {
    "check": "pipeline.api",
    "compare": "pipeline.comparison.compare",
    "export": "pipeline.api",
    "load_recipe": "pipeline.config.loading",
    "load_target": "pipeline.config.loading",
    "verify": "pipeline.bundle.verify",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use (PEP 562): measuring processes import this package too, and must not
    carry what they do not need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
