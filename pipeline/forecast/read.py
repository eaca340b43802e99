"""The config.json that a forecast is made from: of a folder, the file itself, or the one thing of a hub id that is
fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pipeline.core.errors import StageError, UsageError, first_line
from pipeline.core.untrusted import read_json_object, user_path
from pipeline.source.model_config import CONFIG, read_config

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_planned(model: str) -> tuple[str, dict[str, Any]]:
    """The name of a model, and its config.json. UsageError if `model` names none; StageError if a hub id's cannot be
    fetched."""
    path = user_path(model)
    if path.is_dir():
        folder = path.resolve()
        return folder.name, read_config(folder)
    if path.is_file():
        name = path.resolve().parent.name if path.name == CONFIG else path.stem
        return name, read_json_object(path)
    if _HUB_ID.fullmatch(model):
        return model.rpartition("/")[2], read_json_object(_fetched(model), f"{CONFIG} of {model!r}")
    raise UsageError(
        f"There is no model {model!r}: no such folder or file.", f"Give a folder, a {CONFIG}, or a hub id (owner/name)."
    )


def _fetched(model: str) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # slow, and only hub ids need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(hf_hub_download(model, CONFIG))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise StageError(
            f"{model!r} is no folder here, and its {CONFIG} could not be fetched from the hub: {first_line(error)}",
            "Check the id and the network, or download it elsewhere and give its path.",
        ) from error
