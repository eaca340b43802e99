"""edge-pipeline: (model, target, recipe) -> a bundle that an app can load, and a verdict with evidence."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import check, export
    from pipeline.bundle.verify import verify
    from pipeline.config.loading import load_recipe, load_target

__all__ = ["check", "export", "load_recipe", "load_target", "verify"]

_HOMES = {
    "check": "pipeline.api",
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
