"""The forecast of a model and a target that are named."""

from __future__ import annotations

from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.errors import UsageError
from pipeline.forecast.forecast import Forecast, forecast
from pipeline.forecast.read import read_planned
from pipeline.forecast.shapes import ModelShapes, shapes_of
from pipeline.quantize.schemes import SCHEMES, resolve_scheme

_TASK = "text-generation"


def forecast_of(
    model: str,
    target: str,
    context: int | None = None,
    device_memory_mb: float | None = None,
    cache: int | None = None,
) -> tuple[Forecast, Target]:
    """The forecast, and the target as it is for language models.

    Args:
        model: A folder, a config.json, or a hub id, of which only config.json is fetched.
        target: The name of a target, or its file.
        context: Tokens of a text at most; None for the target's, as far as the model takes them.
        device_memory_mb: Of one device, for how many hold the weights; None for the target's.
        cache: Bits of keys and values; None for the schemes' own.

    Raises:
        UsageError: One of them cannot be used.
    """
    name, config = read_planned(model)
    profile = load_target(target).for_task(_TASK)
    shapes = shapes_of(config, name)
    memory = float(profile.device.memory_mb) if device_memory_mb is None else device_memory_mb
    changed = {} if cache is None else {"cache": cache}
    usable = [name for name, scheme in SCHEMES.usable().items() if scheme.everywhere is None]  # NPUs write no texts
    schemes = {name: resolve_scheme(name, changed, "--cache") for name in usable}
    return forecast(name, shapes, profile, schemes, _context(shapes, profile, context), memory), profile


def _context(shapes: ModelShapes, target: Target, asked: int | None) -> int:
    """Tokens of a text at most: those asked for, or the target's as far as the model takes them."""
    longest = shapes.longest
    if asked is not None and longest is not None and asked > longest:
        raise UsageError(
            f"--context {asked} is beyond the {longest} tokens that the model takes (config.json).", "Give less."
        )
    return asked or min(target.shape.context_length, longest or target.shape.context_length)
