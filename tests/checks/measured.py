"""What was measured of a bundle, put together by hand, for tests of budgets and of what explains them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.checks.float_reference import FloatReference
from pipeline.checks.left_in_float import Reasons
from pipeline.checks.measurements import Case, Measurements
from pipeline.checks.weights import Weight
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.core.report_types import DatasetAccuracy, Measured
from pipeline.core.types import Evidence, Figure, Scheme
from pipeline.quantize.schemes import SCHEMES
from pipeline.runtime.behaviour import Behaviour

SCHEME = Scheme(name="w8a8-dynamic", weights=8, activations="dynamic", embeddings=8)
W8A8, FP32 = (SCHEMES.get(name) for name in ("w8a8", "fp32"))


def figure(value: float, unit: str = "MB", evidence: Evidence = Evidence.HOST) -> Figure:
    return Figure(value=value, unit=unit, evidence=evidence)


def measured(
    scheme: Scheme = SCHEME,
    *,
    megabytes: float = 0.0,
    weights: tuple[Weight, ...] = (),
    takes_text: bool = False,
    takes_passes: bool = True,
    runtime: Runtime | None = None,
    **records: object,
) -> Measurements:
    """What was measured of a bundle of this scheme."""
    target = load_target("phone").model_copy(update={"runtime": runtime or Runtime()})
    case = Case(Path("bundle"), target, scheme, Reasons())
    return Measurements(case, Measured.model_validate(records), megabytes, weights, takes_text, takes_passes)


def judged(family: str, *results: DatasetAccuracy, **fields: object) -> Measurements:
    """What was measured of a bundle of this kind of output, beside its float model."""
    found = measured(accuracy=results, **fields)  # type: ignore[arg-type]  # records
    behaviour = Behaviour(family=family, batch="free", padding="harmless")
    reference = FloatReference(Path(), Path(), Path(), Path(), behaviour)
    return replace(found, case=replace(found.case, reference=reference))
