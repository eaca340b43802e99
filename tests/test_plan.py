"""The plan of an export: which stages, in which order, and what their keys depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.job import Job
from pipeline.core.errors import UsageError
from pipeline.core.registry import load_attribute
from pipeline.core.stage import Stage
from pipeline.plan import make_plan


@pytest.fixture
def job(tiny_encoder: Path, tmp_path: Path) -> Job:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text number {n}" for n in range(20)))
    return Job(
        model=str(tiny_encoder),
        calibration_data=str(texts),
        calibration_samples=8,
        eval_data=(str(texts),),
        target="phone",
    )


def stages(job: Job, **changes: object) -> dict[str, Stage]:
    return {stage.name: stage for stage in make_plan(job.model_copy(update=changes)).stages}


SAMPLES = ["samples.calibration", "samples.evaluation", "trace.float"]
END = ["reference", "bundle"]


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("fp32", [*SAMPLES[1:], *END]),
        ("w4", [*SAMPLES, "calibrate.hessians", "quantize", "write", "compare", *END]),
        ("w8", [*SAMPLES[1:], "quantize", "write", "compare", *END]),
        ("fp16", [*SAMPLES[1:], "quantize", "write", "compare", *END]),
        ("w8a8-dynamic", [*SAMPLES, "calibrate.channels", "smooth", "quantize", "write", "compare", *END]),
        ("w8a8", [*SAMPLES, "calibrate.channels", "smooth", "calibrate.ranges", "quantize", "write", "compare", *END]),
        (
            "prune-w4",
            [*SAMPLES, "compress.0.prune", "trace", "calibrate.hessians", "quantize", "write", "compare", *END],
        ),
    ],
)
def test_stages_in_order(job: Job, recipe: str, names: list[str]) -> None:
    planned = stages(job, recipe=recipe)
    assert list(planned) == names
    for place, stage in enumerate(planned.values()):
        assert set(stage.inputs.values()) <= set(names[:place]), "a stage reads only what was made before it"
        assert callable(load_attribute(stage.run))


def test_sensitivity_is_measured_only_where_the_scheme_asks(job: Job) -> None:
    for recipe, inputs in {
        "w8a8": {"graph": "smooth", "ranges": "calibrate.ranges", "samples": "samples.calibration"},
        "w4": {"graph": "trace.float", "hessians": "calibrate.hessians", "samples": "samples.calibration"},
    }.items():
        planned = stages(job, recipe=recipe, scheme={"min_sqnr_db": 30.0})
        names = list(planned)
        assert names.index("sensitivity") == names.index("quantize") - 1
        assert planned["sensitivity"].inputs == inputs
        assert planned["quantize"].inputs["sensitivity"] == "sensitivity"


def test_keys_hold_no_place_on_this_machine(job: Job, tmp_path: Path, tiny_encoder: Path) -> None:
    for stage in stages(job, recipe="prune-w4").values():
        text = json.dumps(stage.config)
        assert str(tmp_path) not in text
        assert str(tiny_encoder.parent) not in text


def changed(before: dict[str, Stage], after: dict[str, Stage]) -> list[str]:
    return [name for name in before if before[name].config != after[name].config]


def test_only_what_uses_a_setting_is_made_again(job: Job) -> None:
    plan = stages(job, recipe="prune-w4")
    assert changed(plan, stages(job, recipe="prune-w4", budgets={"latency_p95_ms": 1.0, "bundle_mb": 1.0})) == []
    assert changed(plan, stages(job, recipe="prune-w4", budgets={"max_accuracy_drop": 9.0})) == ["compress.0.prune"]
    assert changed(plan, stages(job, recipe="prune-w4", threads=2)) == ["bundle"]
    assert changed(plan, stages(job, recipe="prune-w4", opset=22)) == ["trace.float", "trace"]


def test_random_calibration_is_noted(job: Job) -> None:
    plan = make_plan(job.model_copy(update={"random_calibration": True}))
    assert plan.notes == ("Calibrated on random tensors (--random-calibration): accuracy will suffer.",)


def test_a_budget_that_the_target_does_not_have(job: Job) -> None:
    with pytest.raises(UsageError, match="The target 'phone' has no budget 'max_power_w'"):
        make_plan(job.model_copy(update={"budgets": {"max_power_w": 3.0}}))


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("[[passes]]\nratio = 0.5\n", "pass 1 of recipe mine does not say which pass it is."),
        ('[[passes]]\npass = "prun"\n', "Unknown pass 'prun'."),
        (
            '[[passes]]\npass = "prune"\n',
            "pass 1 of recipe mine has 1 mistake:\n  - no amount is given: give exactly one of ratio, "
            "target_macs, target_params, keep",
        ),
        ('[[passes]]\npass = "prune"\nratio = 0.5\nround = 8\n', "round: unknown key. Did you mean 'round_to'"),
        ('[[passes]]\npass = "prune"\nratio = 1.5\n', "ratio"),
    ],
)
def test_mistakes_in_a_recipes_passes(job: Job, tmp_path: Path, passes: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(f'title = "Mine"\nscheme = "fp32"\n{passes}')
    with pytest.raises(UsageError) as caught:
        make_plan(job.model_copy(update={"recipe": str(tmp_path / "mine.toml")}))
    assert message in str(caught.value)
