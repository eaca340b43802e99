"""Compression passes: float model in, smaller float model out, as edits that can be replayed."""

from pipeline.core.registry import Registry
from pipeline.core.types import Frozen

PASSES: Registry[type[Frozen]] = Registry("pass", {"prune": "pipeline.compress.prune:Prune"})
"""Name -> config class, whose `run` names the stage function."""
