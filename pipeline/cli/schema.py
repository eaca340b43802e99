"""`edge schema`: JSON schemas of the files that people write and of those that machines read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.bundle.manifest import Manifest
from pipeline.compress import PASSES, STRUCTURES
from pipeline.config.recipe import Recipe
from pipeline.config.target import Target
from pipeline.core.errors import UsageError, suggest
from pipeline.core.report_types import Report
from pipeline.core.types import Scheme

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of file; UsageError for another name."""
    if name not in SCHEMAS:
        raise UsageError(f"There is no schema {name!r}.", suggest(name, SCHEMAS))
    return {"$schema": _DIALECT, **SCHEMAS[name]()}


def _file(record: dict[str, Any]) -> dict[str, Any]:
    """Of a TOML file: its name is the file's, and no key of it."""
    record["properties"].pop("name")
    record["required"].remove("name")
    return record


def _recipe() -> dict[str, Any]:
    schema = _file(Recipe.model_json_schema())
    definitions = schema.setdefault("$defs", {})
    units = [*STRUCTURES.usable().items()]
    kinds = [*PASSES.usable().items(), *(("prune", kind) for _, kind in units)]
    tables = []
    for name, kind in kinds:
        table = kind.model_json_schema()
        definitions |= table.pop("$defs", {})
        table["properties"] = {"pass": {"const": name}, **table["properties"]}
        table["required"] = ["pass", *table.get("required", ())]
        tables.append(table)
    schema["properties"]["passes"]["items"] = {"anyOf": tables}
    scheme = Scheme.model_json_schema()
    definitions |= scheme.pop("$defs", {})
    scheme["properties"] = {"base": {"type": "string"}, **scheme["properties"]}
    scheme["properties"].pop("name")
    scheme["required"] = ["base"]
    schema["properties"]["scheme"]["anyOf"] = [{"type": "string"}, scheme]
    return schema


def _target() -> dict[str, Any]:
    """Of a target's file. One that extends another says only what differs, which fits no schema of the whole."""
    whole = _file(Target.model_json_schema())
    definitions = whole.pop("$defs")
    extends = {"type": "string", "description": "the target that this one changes"}
    return {
        "$defs": definitions,
        "type": "object",
        "properties": {"extends": extends},
        "if": {"required": ["extends"]},
        "then": {"propertyNames": {"enum": ["extends", *whole["properties"]]}},
        "else": whole,
    }


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "recipe": _recipe,
    "target": _target,
    "report": Report.model_json_schema,
    "manifest": Manifest.model_json_schema,
}
