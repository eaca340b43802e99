"""A stage: a function from a config and input artifacts to one artifact, run once per key (see run_stages)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pipeline.core.artifact import Artifact
from pipeline.core.digest import canonical_json, sha256_json
from pipeline.core.model_spec import ModelSpec
from pipeline.core.registry import load_attribute
from pipeline.core.types import Json, Progress

MODEL = "model"
"""The role of the model source that is exported."""


@dataclass(frozen=True)
class StageContext:
    """What a stage function gets. It fills `out` and returns metadata. `scratch` (which need not exist yet) outlives a
    crash: the next try at the same stage finds there what this one left. `models`: by role, `MODEL` being the one that
    is exported. `digests`: SHA-256 of files in `out` that are known already, which then are not read again for it."""

    config: dict[str, Json]
    inputs: Mapping[str, Artifact]
    out: Path
    progress: Progress
    scratch: Path | None = None
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> ModelSpec:
        return self.models[MODEL]


StageMetadata = dict[str, Json]
"""What a stage function found out, as plain data: a part of its artifact, as the files in `out` are."""

StageFunction = Callable[[StageContext], StageMetadata]


@dataclass(frozen=True)
class Stage:
    """One step of a plan.

    `run` is `"module:function"`, imported only when the stage is not in the store, so that a warm run never
    loads torch. `config` is everything but the inputs that may change the result; `inputs` maps a role to the
    name of an earlier stage; `libraries` are the packages whose versions may change the result.
    """

    name: str
    version: int
    run: str
    config: dict[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    local: dict[str, Json] = field(default_factory=dict)
    """Where things are on this machine (the path of a data set whose digest is in `config`): not in the key."""
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    """Model sources by role."""

    def identity(self, inputs: Mapping[str, Artifact]) -> dict[str, Json]:
        """What the key is the hash of, as it can be read back from JSON."""
        identity = {
            "stage": self.name,
            "version": self.version,
            "config": self.config,
            "models": {role: model.identity() for role, model in self.models.items()},
            "inputs": {role: artifact.digest for role, artifact in inputs.items()},
            "libraries": {name: version(name) for name in self.libraries},
        }
        return json.loads(canonical_json(identity))  # keys that are numbers become text, and sort as such

    def key(self, inputs: Mapping[str, Artifact]) -> str:
        """What the store has its artifact under."""
        return sha256_json(self.identity(inputs))

    def function(self) -> StageFunction:
        """Imports it."""
        return load_attribute(self.run)
