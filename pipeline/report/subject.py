"""What a report is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.report_types import PassReport, StageRecord, TensorFormat
from pipeline.core.run_stages import Outcome
from pipeline.core.types import Json, Scheme
from pipeline.report.sparsity import with_storage
from pipeline.report.stage_notes import stage_notes
from pipeline.source.model import ModelSource


@dataclass(frozen=True)
class Subject:
    """What was checked: the bundle's own account of itself, and how it was made if this run made it."""

    model: str
    model_digest: str
    task: str
    recipe: str
    scheme: Scheme
    bundle_digest: str
    calibration: dict[str, Json]
    passes: tuple[PassReport, ...]
    stages: tuple[StageRecord, ...]
    formats: tuple[TensorFormat, ...]
    notes: tuple[str, ...]

    @classmethod
    def of_export(
        cls,
        source: ModelSource,
        recipe: str,
        scheme: Scheme,
        bundle_digest: str,
        outcomes: Mapping[str, Outcome],
        formats: tuple[TensorFormat, ...],
        notes: Sequence[str],
    ) -> Subject:
        """Of an export of `source` by its stages; `notes` of its plan."""
        metadata = {name: outcome.artifact.metadata for name, outcome in outcomes.items()}
        rebuilt = [name for name, outcome in outcomes.items() if outcome.rebuilt]
        passes = tuple(
            with_storage(PassReport.from_data(values, f"the report of stage {name}"), scheme)
            for name, values in metadata.items()
            if name.startswith("compress.")
        )
        return cls(
            model=source.name,
            model_digest=source.digest,
            task=source.task.name,
            recipe=recipe,
            scheme=scheme,
            bundle_digest=bundle_digest,
            calibration=metadata.get("samples.calibration", {}),
            passes=passes,
            stages=tuple(
                StageRecord(name=name, key=o.artifact.key, cached=o.cached, seconds=round(o.seconds, 3))
                for name, o in outcomes.items()
            ),
            formats=formats,
            notes=(
                *notes,
                *(f"The stored result of stage {name} was damaged; it was built again." for name in rebuilt),
                *stage_notes(metadata, passes),
            ),
        )

    @classmethod
    def of_bundle(
        cls,
        manifest: Mapping[str, Any],
        task: str,
        scheme: Scheme,
        formats: tuple[TensorFormat, ...],
        notes: Sequence[str],
    ) -> Subject:
        """Of a bundle that lies somewhere, by its manifest."""
        provenance = manifest["provenance"]
        return cls(
            model=provenance["model"],
            model_digest=provenance["model_digest"],
            task=task,
            recipe=provenance["recipe"],
            scheme=scheme,
            bundle_digest=manifest["digest"],
            calibration={},
            passes=(),
            stages=(),
            formats=formats,
            notes=("An existing bundle was checked; nothing was rebuilt.", *notes),
        )
