"""`edge plan`: what a language model would take on a target, before anything of it is downloaded or built."""

from __future__ import annotations

from pipeline.cli.lists import parse_size
from pipeline.cli.terminal import output_console
from pipeline.core.digest import pretty_json
from pipeline.core.errors import ExitCode, UsageError
from pipeline.forecast.of_model import forecast_of
from pipeline.forecast.text import render

_CODES = {"fits": ExitCode.PASS, "does not fit": ExitCode.BUDGET_FAILED, "unsure": ExitCode.NOT_MEASURED}


def run(
    model: str, target: str, context: int | None, device_memory: str | None, cache: int | None, json: bool
) -> ExitCode:
    """Print the forecast; PASS if a scheme surely fits, BUDGET_FAILED if none can, NOT_MEASURED if that is open."""
    memory = parse_size(device_memory) / 1e6 if device_memory else None
    if memory == 0:
        raise UsageError(f"A device's memory of {device_memory} holds nothing.", "For example: 8GB, 80GB.")
    found, profile = forecast_of(model, target, context, memory, cache)
    if json:
        output_console().out(pretty_json(found.model_dump(mode="json")), end="", highlight=False)
    else:
        render(found, profile, output_console())
    return _CODES[found.verdict]
