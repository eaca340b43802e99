"""What a sentence-transformers folder puts behind its encoder, as its JSON files say."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import read_json, read_json_object

POOLING_MODES = ("cls", "mean", "max", "mean_sqrt_len", "lasttoken", "weightedmean")


def sentence_modules(path: Path) -> tuple[str, bool]:
    """(pooling mode, normalize?) from a sentence-transformers folder; UsageError for a module we cannot export."""
    modules = _module_list(path)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown or kinds[:2] != ["Transformer", "Pooling"]:
        raise UsageError(
            f"The sentence encoder {path.name!r} is built of {', '.join(kinds)}.",
            "Only Transformer + Pooling (+ Normalize) can be exported; merge other modules into the model first.",
        )
    return _pooling_mode(path, modules[1]["path"]), "Normalize" in kinds


def _module_list(path: Path) -> list[dict[str, str]]:
    modules = read_json(path / "modules.json")
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path"), str)
        for module in modules
    ):
        raise UsageError(f"modules.json of {path.name!r} is not a list of modules with a type and a path each.")
    return modules


def _pooling_mode(path: Path, place: str) -> str:
    if Path(place).name != place or "\0" in place:
        raise UsageError(f"modules.json of {path.name!r} names the folder {place!r}, which is outside the model's.")
    config = read_json_object(path / place / "config.json")
    flags = {
        "cls": "pooling_mode_cls_token",
        "mean": "pooling_mode_mean_tokens",
        "max": "pooling_mode_max_tokens",
        "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
        "lasttoken": "pooling_mode_lasttoken",
        "weightedmean": "pooling_mode_weightedmean_tokens",
    }
    chosen = [mode for mode, flag in flags.items() if config.get(flag) or config.get("pooling_mode") == mode]
    if len(chosen) != 1:
        raise UsageError(
            f"The pooling of {path.name!r} is {' + '.join(chosen) or 'not given'}.",
            f"Exactly one of {', '.join(POOLING_MODES)} can be exported.",
        )
    return chosen[0]
