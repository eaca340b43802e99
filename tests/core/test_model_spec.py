"""The record of a model source: what of it is in a stage's key, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_specs import factory, hugging_face
from pydantic import ValidationError

from pipeline.core.model_spec import DecoderSpec, InputSpec, LanguageSpec, ModelSpec
from pipeline.core.stage import MODEL, Stage, StageContext
from pipeline.core.types import silent

SPEC = hugging_face(Path("model"), inputs={"x": InputSpec(shape=("batch", 3))})


def key(spec: ModelSpec) -> str:
    return Stage("s", 1, "m:f", {}, models={MODEL: spec}).key({})


@pytest.mark.parametrize("field", ["path", "entry", "tokenizer"])
def test_places_are_not_in_the_key(field: str) -> None:
    assert key(SPEC.model_copy(update={field: Path("elsewhere")})) == key(SPEC)
    assert field not in SPEC.identity()


@pytest.mark.parametrize("field", sorted(ModelSpec.model_fields.keys() - {"path", "entry", "tokenizer", "stamps"}))
def test_everything_else_is(field: str) -> None:
    value = getattr(SPEC, field)
    given = {"inputs": {}, "preprocessing": {"resize": 8}, "head": {"blank": 0}, "labels": {"0": "dog"}}
    given["text_length"] = 128
    given["decoder"] = DecoderSpec(start=0)
    given["language"] = LanguageSpec(layers=1, heads=1, size=8, queries=1, hidden=8, vocabulary=9, longest=16)
    other = given.get(field, not value if isinstance(value, bool) else "other")
    assert key(SPEC.model_copy(update={field: other})) != key(SPEC)


def test_a_teacher_is_in_the_key_of_its_student() -> None:
    one, other = (
        Stage("s", 1, "m:f", {}, models={MODEL: SPEC, "teacher": SPEC.model_copy(update={"digest": digest})})
        for digest in ("d", "e")
    )
    assert one.key({}) != other.key({})


def test_a_stage_gets_the_whole_record(tmp_path: Path) -> None:
    assert StageContext({}, {}, tmp_path, silent, models={MODEL: SPEC}).model is SPEC


def test_a_tokenizer_of_a_pass_takes_the_place_of_the_models_own() -> None:
    assert SPEC.tokenizer_folder == Path("model")
    assert SPEC.model_copy(update={"tokenizer": Path("trimmed")}).tokenizer_folder == Path("trimmed")


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        factory(colour="blue")
