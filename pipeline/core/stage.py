"""A stage: a function from a config and input artifacts to one artifact, run once per key."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pipeline.core.artifact import Artifact, seal
from pipeline.core.digest import canonical_json, sha256_json
from pipeline.core.errors import IntegrityError, ResourceError
from pipeline.core.memory import is_out_of_memory
from pipeline.core.model_spec import ModelSpec
from pipeline.core.registry import load_attribute
from pipeline.core.store import Store
from pipeline.core.types import Json, Progress, silent

MODEL = "model"
"""The role of the model source that is exported."""


@dataclass(frozen=True)
class StageContext:
    """What a stage function gets. It fills `out` and returns its facts. `scratch` (which need not exist yet) outlives a
    crash: the next try at the same stage finds there what this one left. `models`: by role, `MODEL` being the one that
    is exported."""

    config: dict[str, Json]
    inputs: Mapping[str, Artifact]
    out: Path
    progress: Progress
    scratch: Path | None = None
    models: Mapping[str, ModelSpec] = field(default_factory=dict)

    @property
    def model(self) -> ModelSpec:
        return self.models[MODEL]


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


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: its artifact, whether it was there already, and the seconds it took."""

    artifact: Artifact
    cached: bool
    seconds: float
    rebuilt: bool = False


Run = Callable[[StageContext], dict[str, Json]]


def stage_key(stage: Stage, inputs: Mapping[str, Artifact]) -> str:
    return sha256_json(stage.identity(inputs))


def execute(stage: Stage, inputs: Mapping[str, Artifact], store: Store, progress: Progress = silent) -> Outcome:
    """Return the stage's artifact from the store, or build it under its lock.

    Raises StageError (or another EdgeError) if the stage fails; nothing half-written is left then.
    """
    begin = time.perf_counter()
    key = stage_key(stage, inputs)
    with store.lock(key):
        damaged = False
        try:
            found = store.find(key)
        except IntegrityError:
            store.discard(key)
            found, damaged = None, True
        if found is not None:
            return Outcome(found, cached=True, seconds=time.perf_counter() - begin)
        artifact = _build(stage, inputs, store, key, progress)
    return Outcome(artifact, cached=False, seconds=time.perf_counter() - begin, rebuilt=damaged)


def _build(stage: Stage, inputs: Mapping[str, Artifact], store: Store, key: str, progress: Progress) -> Artifact:
    with _named(stage.name), store.staging(key) as folder:
        run: Run = load_attribute(stage.run)  # here, since a library that does not fit in memory fails on import
        scratch, config = store.scratch(key), {**stage.config, **stage.local}
        facts = run(StageContext(config, inputs, folder, progress, scratch, stage.models))
        seal(folder, stage.name, key, stage.identity(inputs), facts)
        return store.commit(folder, key)


class _named:  # noqa: N801  # reads as a clause: `with _named(...)`
    """Turns the operating system's failures inside a stage into one clear message that names the stage."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ResourceError):
            return
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"Stage {self.stage}: the disk is full.",
                "Free some space (`edge clean` shrinks the store) and run the same command again; "
                "finished stages are kept.",
            ) from error
        if is_out_of_memory(error):
            raise ResourceError(
                f"Stage {self.stage}: out of memory.",
                "Use a machine with more memory or, for texts, a smaller --sequence-length; finished stages are kept.",
            ) from error
