"""The plan of an export: which stages, in which order, and what their keys depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.job import Job
from pipeline.core.errors import UsageError
from pipeline.core.registry import load_attribute
from pipeline.core.stage import Stage
from pipeline.plan.build import make_plan, with_recipe


@pytest.fixture
def job(tiny_encoder: Path, tmp_path: Path) -> Job:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text number {n}" for n in range(20)))
    return Job(
        model=str(tiny_encoder),
        calibration_data=str(texts),
        calibration_samples=12,
        eval_data=(str(texts),),
        target="phone",
    )


def stages(job: Job, **changes: object) -> dict[str, Stage]:
    return {stage.name: stage for stage in make_plan(job.model_copy(update=changes)).stages}


SAMPLES = ["samples.calibration", "samples.evaluation", "trace.float", "probe", "judge"]
ROUNDED = ["quantize", "write", "compare", "outside"]
END = ["reference", "bundle", "answers"]


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("fp32", [*SAMPLES[1:], *END]),
        ("w4", [*SAMPLES, "layers", "calibrate.hessians", "quantize", "write", "compare", *END]),
        ("w4a8-dynamic", [*SAMPLES, "layers", "calibrate.hessians", "quantize", "write", "compare", *END]),
        ("w8", [*SAMPLES[1:], "layers", "quantize", "write", "compare", *END]),
        ("fp16", [*SAMPLES[1:], "layers", "quantize", "write", "compare", *END]),
        ("w8a8-dynamic", [*SAMPLES, "layers", "calibrate.channels", "smooth", *ROUNDED, *END]),
        ("w8a8", [*SAMPLES, "layers", "calibrate.channels", "smooth", "calibrate.ranges", "noise", *ROUNDED, *END]),
        ("w4a8-static", [*SAMPLES, "layers", "calibrate.ranges", "calibrate.hessians", "noise", *ROUNDED, *END]),
        (
            "prune-w4",
            [
                *(*SAMPLES, "compress.0.prune", "trace", "layers", "calibrate.ranges", "calibrate.hessians", "noise"),
                *(*ROUNDED, *END),
            ],
        ),
    ],
)
def test_stages_in_order(job: Job, recipe: str, names: list[str]) -> None:
    planned = stages(job, recipe=recipe)
    assert list(planned) == names
    for place, stage in enumerate(planned.values()):
        assert set(stage.inputs.values()) <= set(names[:place]), "a stage reads only what was made before it"
        assert callable(load_attribute(stage.run))


def test_codes_are_learned_of_language_models_only(job: Job) -> None:
    with pytest.raises(UsageError) as raised:
        stages(job, recipe="w4a8-learned")
    assert raised.value.message == (
        "The scheme 'w4a8' learns codes block by block of a language model; 'tiny-encoder' does feature-extraction."
    )


def test_sensitivity_is_measured_only_where_the_scheme_asks(job: Job) -> None:
    given = {"layers": "layers", "samples": "samples.calibration"}
    for recipe, inputs in {
        "w8a8": {**given, "graph": "smooth", "ranges": "calibrate.ranges", "noise": "noise"},
        "w4": {**given, "graph": "trace.float", "hessians": "calibrate.hessians"},
    }.items():
        planned = stages(job, recipe=recipe, scheme={"min_sqnr_db": 30.0})
        names = list(planned)
        assert names.index("sensitivity") == names.index("quantize") - 1
        assert planned["sensitivity"].inputs == inputs
        assert planned["quantize"].inputs["sensitivity"] == "sensitivity"


@pytest.mark.parametrize(("asked", "opset"), [(None, 23), (21, 21), (22, 22)])
def test_what_is_traced_takes_the_newest_opset_unless_asked(job: Job, asked: int | None, opset: int) -> None:
    assert stages(job, opset=asked)["trace.float"].config["opset"] == opset


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
    assert changed(plan, stages(job, recipe="prune-w4", budgets={"max_accuracy_drop": 9.0})) == [
        "judge",
        "compress.0.prune",
    ]
    assert changed(plan, stages(job, recipe="prune-w4", threads=2)) == ["bundle"]
    assert changed(plan, stages(job, recipe="prune-w4", opset=22)) == ["trace.float", "trace"]


def test_recipes_share_what_is_watched(job: Job) -> None:
    """It depends on the layers that were found, and on nothing else of a scheme."""
    plain, other = (stages(job, recipe="w4", scheme=changes) for changes in ({}, {"block_size": 64, "scale_bits": 32}))
    assert plain["calibrate.hessians"].config == other["calibrate.hessians"].config == {}
    assert changed(plain, other) == ["quantize", "bundle"]
    excluded = stages(job, recipe="w4", scheme={"nodes_to_exclude": ("*",)})
    assert changed(plain, excluded) == ["layers", "quantize", "bundle"]


def test_random_calibration_is_noted(job: Job) -> None:
    plan = make_plan(job.model_copy(update={"random_calibration": True}))
    assert plan.notes == (
        "Texts are cut to 64 tokens, and measured so, instead of the target's 128: the model takes no more "
        "(max_position_embeddings in config.json).",
        "golden/ in the bundle holds samples of texts, and reference/ beside it all of them, with their labels. "
        "If they are private: --golden-from shipped or random.",
        "Calibrated on random tensors (--random-calibration): accuracy will suffer.",
    )


def test_a_set_smaller_than_the_recipes_number_is_used_whole_and_noted(job: Job) -> None:
    plan = make_plan(job.model_copy(update={"calibration_samples": None}))
    *_, note = plan.notes  # before it: fewer tokens than the target, and what holds the user's data
    assert note == ("The data set 'texts' has 20 samples and is used whole: the recipe w8a8 calibrates with up to 512.")
    (calibration,) = (stage for stage in plan.stages if stage.name == "samples.calibration")
    assert calibration.config["limit"] == 20
    with pytest.raises(UsageError, match="The data set 'texts' has 20 samples, 21 were asked for"):
        make_plan(job.model_copy(update={"calibration_samples": 21}))


@pytest.mark.parametrize("role", ["calibration_data", "eval_data"])
def test_samples_of_another_kind_are_refused_when_it_is_planned(job: Job, role: str) -> None:
    given = "images-procedural" if role == "calibration_data" else ("images-procedural",)
    with pytest.raises(UsageError, match="holds image samples; feature-extraction takes text"):
        make_plan(job.model_copy(update={role: given}))


def test_an_unknown_runner_is_refused_before_any_work(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "targets").mkdir()
    phone = (Path(__file__).parents[2] / "targets/phone.toml").read_text()
    (tmp_path / "targets/board.toml").write_text(f'runner = "hots"\n{phone}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        make_plan(job.model_copy(update={"target": "board"}))
    assert str(caught.value) == "Unknown runner 'hots'.\nDid you mean 'host'?"


def test_a_flag_may_add_a_budget(job: Job) -> None:
    target = make_plan(job.model_copy(update={"budgets": {"latency_p50_ms": 3.0, "min_agreement": 0.9}})).target
    latency, agreement = target.budgets["latency_p50_ms"], target.budgets["min_agreement"]
    assert (latency.limit, latency.required, latency.evidence) == (3.0, True, ("device", "estimated"))
    assert (agreement.limit, agreement.required, agreement.evidence) == (0.9, True, ("host", "emulated", "device"))


def test_a_budget_that_there_is_not(job: Job) -> None:
    with pytest.raises(UsageError, match="Unknown budget 'max_powr_w'"):
        make_plan(job.model_copy(update={"budgets": {"max_powr_w": 3.0}}))


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


_TRIM = '[[passes]]\npass = "prune"\nunit = "tokens"\ndata = "{texts}"\n'


def with_passes(job: Job, tmp_path: Path, passes: str, **changes: object) -> Job:
    texts = str(job.calibration_data)
    (tmp_path / "mine.toml").write_text(f'title = "Mine"\nscheme = "w4"\n{passes.format(texts=texts)}')
    return job.model_copy(update={"recipe": str(tmp_path / "mine.toml"), **changes})


def test_a_trimmed_vocabulary_cuts_the_samples_anew_for_what_follows(job: Job, tmp_path: Path) -> None:
    layers = '[[passes]]\npass = "prune"\nunit = "layers"\nkeep = [0]\n'
    planned = stages(with_passes(job, tmp_path, layers + _TRIM + _TRIM + layers))
    names = list(planned)
    for place, stage in enumerate(planned.values()):
        assert set(stage.inputs.values()) <= set(names[:place])
        assert str(tmp_path) not in json.dumps(stage.config)
    first, second, last = (planned[f"compress.{number}.prune"].inputs for number in (0, 2, 3))
    assert first == {"calibration": "samples.calibration", "probe": "probe"}
    assert second == {
        **{"compressed": "compress.1.prune", "tokenizer": "vocabulary.2", "calibration": "samples.calibration.2"},
        **{"calibration.before": "samples.calibration.1", "calibration.source": "samples.calibration"},
        "probe": "probe",
    }
    assert planned["vocabulary.2"].inputs == {"tokenizer": "vocabulary.1"}
    assert last["calibration"] == planned["calibrate.hessians"].inputs["samples"] == "samples.calibration.2"
    assert planned["reference"].inputs["evaluation"] == "samples.evaluation"
    bundle = planned["bundle"].inputs
    assert (bundle["evaluation"], bundle["evaluation.source"]) == ("samples.evaluation.2", "samples.evaluation")
    assert bundle["tokenizer"] == "vocabulary.2"


@pytest.mark.parametrize(
    ("passes", "changes", "message"),
    [
        (
            _TRIM,
            {"random_calibration": True},
            "pass 1 of recipe mine trims the vocabulary, so that texts become other tokens; 'random tensors' has no "
            "texts.",
        ),
        (
            _TRIM.replace("{texts}", "images-procedural"),
            {},
            "pass 1 of recipe mine: the data set 'images-procedural' holds image samples; tokens are counted in texts.",
        ),
        (_TRIM.replace("{texts}", "nowhere.txt"), {}, "There is no data set 'nowhere.txt'"),
        (
            _TRIM + '[[passes]]\npass = "distill"\n',
            {},
            "pass 2 of recipe mine trains against a teacher that takes other tokens than the trimmed vocabulary has.",
        ),
    ],
)
def test_vocabularies_that_cannot_be_trimmed(
    job: Job, tmp_path: Path, passes: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(with_passes(job, tmp_path, passes, **changes))
    assert message in str(caught.value)


def test_a_teacher_that_an_earlier_pass_trained(job: Job, tmp_path: Path) -> None:
    trained = '[[passes]]\npass = "distill"\nteacher = "trained"\n'
    pruned = '[[passes]]\npass = "prune"\nratio = 0.25\n'
    tuned = '[[passes]]\npass = "distill"\nlosses = {{ embedding_cosine = 1.0 }}\n'
    stages = {stage.name: stage for stage in make_plan(with_passes(job, tmp_path, tuned + pruned + trained)).stages}
    assert stages["compress.2.distill"].inputs["teacher"] == "compress.0.distill"
    assert "teacher" not in stages["compress.0.distill"].inputs
    with pytest.raises(UsageError, match="pass 2 of recipe mine has teacher = 'trained', but no distill pass comes"):
        make_plan(with_passes(job, tmp_path, pruned + trained))


def test_another_recipe_for_the_same_model_shares_what_it_can(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\nscheme = "w4a8"\n[[passes]]\npass = "prune"\nratio = 0.25\n[calibration]\nsamples = 7\n'
    )
    plan = make_plan(job.model_copy(update={"recipe": str(tmp_path / "mine.toml"), "scheme": {"block_size": 64}}))
    plain = with_recipe(plan, plan.recipe.model_copy(update={"name": "w4a8", "passes": (), "scheme": "w4a8"}))
    assert (plan.scheme.block_size, plain.scheme.block_size) == (64, 32)
    shared = ("samples.calibration", "samples.evaluation", "trace.float", "reference")
    by_name = [{stage.name: stage for stage in one.stages} for one in (plan, plain)]
    assert all(by_name[0][name] == by_name[1][name] for name in shared)
    assert not any(name.startswith("compress.") for name in by_name[1])


def test_ten_texts_are_too_few_to_compare_neighbours_on(job: Job, tmp_path: Path) -> None:
    (tmp_path / "ten.txt").write_text("a text\n" * 10)
    with pytest.raises(UsageError) as caught:
        stages(job, eval_data=(str(tmp_path / "ten.txt"),))
    assert caught.value.message == (
        "The data set 'ten' has 10 samples; at least 11 are needed to compare the outputs of feature-extraction on."
    )


def test_passes_are_judged_on_the_calibration_samples(job: Job) -> None:
    with pytest.raises(UsageError, match="has 10 samples; at least 11 are needed") as caught:
        stages(job, recipe="prune-w4", calibration_samples=10)
    assert caught.value.remedy == "Give more with --calibration-samples."
