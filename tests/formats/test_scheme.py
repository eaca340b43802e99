"""Which format a scheme and its overrides give to a weight, and what follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.core.report_types import TensorFormat
from pipeline.core.types import Scheme
from pipeline.formats.scheme import SchemeFormats, check_overrides, check_scheme
from pipeline.quantize.schemes import SCHEMES

MIXED = SCHEMES.get("w4").model_copy(
    update={"overrides": (("*.attention.*", "int8-channel"), ("*.attention.out*", "fp32"), ("words/*", "fp16"))}
)


@pytest.mark.parametrize(
    ("scheme", "linear", "conv", "table"),
    [
        ("fp32", "fp32", "fp32", "fp32"),
        ("fp16", "fp16", "fp16", "fp16"),
        ("w8a8", "int8-channel", "int8-channel", "int8-channel"),
        ("w8a8-dynamic", "int8-channel", "int8-stored", "int8-channel"),
        ("w8", "int8-block", "int8-stored", "int8-channel"),
        ("w4", "int4-block", "int8-stored", "int4-block"),
        ("w4a8", "int4-block", "int8-stored", "int4-block"),
        ("w4a8-static", "int4-widened", "int8-channel", "int4-block"),
    ],
)
def test_named_schemes(scheme: str, linear: str, conv: str, table: str) -> None:
    classes = SchemeFormats(SCHEMES.get(scheme)).classes
    found = {op: form.name for op, form in classes.items()}
    others = linear if linear in ("fp32", "fp16") else "int8-stored"
    recurrent = "int8-lstm" if SCHEMES.get(scheme).activations != "float" else others
    assert found == {"linear": linear, "conv": conv, "table": table, "lstm": recurrent, "other": others}


def test_per_tensor_scales_are_a_format_of_their_own() -> None:
    scheme = Scheme(name="t", weights=8, activations="dynamic", per_channel=False)
    assert SchemeFormats(scheme).classes["linear"].name == "int8-tensor"


@pytest.mark.parametrize(
    ("op", "node", "name", "pattern"),
    [
        ("linear", "layer.0.attention.query/MatMul", "int8-channel", "*.attention.*"),
        ("linear", "layer.0.attention.output/MatMul", "fp32", "*.attention.out*"),  # the last that matches
        ("linear", "layer.0.dense/MatMul", "int4-block", ""),
        ("table", "words/Gather", "fp16", "words/*"),
        ("table", "places/Gather", "int4-block", ""),
    ],
)
def test_the_last_pattern_that_matches_decides(op: Any, node: str, name: str, pattern: str) -> None:
    formats = SchemeFormats(MIXED)
    assert (formats.of(op, node).name, formats.override(node)) == (name, pattern)


def test_reasons_name_the_override() -> None:
    formats, weight = SchemeFormats(MIXED), np.ones((64, 64), np.float32)
    assert formats.leaves("linear", "a.attention.output/MatMul", weight) == (
        "the scheme w4 keeps weights in float (override '*.attention.out*')"
    )
    assert formats.leaves("linear", "a.attention.query/MatMul", weight) == ""
    assert SchemeFormats(SCHEMES.get("fp32")).leaves("linear", "x", weight) == "the scheme fp32 keeps weights in float"


def test_modules_of_pytorch_get_the_format_of_their_nodes() -> None:
    formats = SchemeFormats(MIXED)
    assert formats.of_module("linear", "layer.0.attention.query").name == "int8-channel"
    assert formats.of_module("table", "words").name == "fp16"


def test_products_that_an_override_took_decide_what_is_said_of_products() -> None:
    """int8-channel in a scheme with float activations finds its ranges at run time."""
    row = {"name": "W", "node": "n", "format": "int8-channel", "override": "*.attention.*", "megabytes": 1.0}
    for op, integer in (("linear", True), ("table", False)):
        formats = SchemeFormats(MIXED, [TensorFormat.model_validate({**row, "op": op})])
        assert (formats.integer_products, formats.finds_ranges_at_run_time) == (integer, integer)
    assert SchemeFormats(MIXED).integer_products  # nothing is known
    assert not SchemeFormats(SCHEMES.get("w4")).integer_products


def test_gptq_may_be_asked_for_by_an_override() -> None:
    scheme = SCHEMES.get("w8a8").model_copy(update={"rounding": "gptq", "overrides": (("*", "int4-block"),)})
    check_scheme(scheme)
    assert SchemeFormats(scheme).needs_curvature
    with pytest.raises(UsageError, match="asks for GPTQ but stores weights in 8 bits"):
        check_scheme(scheme.model_copy(update={"overrides": ()}))


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        check_scheme(MIXED.model_copy(update={"overrides": (("*", "int8-chanel"),)}))
    assert "'int8-chanel'" in caught.value.message
    assert caught.value.remedy == "Did you mean 'int8-channel' or 'int8-npu'?"


def test_a_table_of_a_recipe_keeps_its_order() -> None:
    scheme = Scheme.model_validate({"name": "t", "overrides": {"b*": "fp16", "a*": "fp32"}})
    assert scheme.overrides == (("b*", "fp16"), ("a*", "fp32"))
    assert Scheme.model_validate_json(scheme.model_dump_json()) == scheme


def test_patterns_that_match_nothing_are_named_with_near_names() -> None:
    nodes = ["layer.0.attention.query/MatMul", "layer.0.dense/MatMul", "words/Gather"]
    check_overrides(["*.attention.*", "words/*"], nodes)
    with pytest.raises(UsageError) as caught:
        check_overrides(["*.atention.query*"], nodes)
    assert caught.value.message == "The scheme's override '*.atention.query*' matches no node that reads a weight."
    assert caught.value.remedy == (
        "Names look like: layer.0.attention.query/MatMul. `edge inspect <bundle>` lists them; * matches anything."
    )
    far = [f"model.encoder.layer.{n}.self.value/MatMul" for n in range(9)]
    with pytest.raises(UsageError) as caught:
        check_overrides(["*.atention.*"], [*far, *nodes])
    assert caught.value.remedy.startswith("Names look like: layer.0.attention.query/MatMul. ")
    with pytest.raises(UsageError) as caught:
        check_overrides(["zzz"], [])
    assert caught.value.remedy.startswith("Names look like: none, as no node reads a weight.")


def scheme_words(scheme: Scheme) -> dict[str, str]:
    return SchemeFormats(scheme).words()


def test_words_of_w8a8_static() -> None:
    scheme = Scheme(
        name="w8a8",
        weights=8,
        activations="static",
        observer="percentile",
        smoothing=0.5,
        nodes_to_exclude=("head",),
    )
    assert scheme_words(scheme) == {
        "Weights": "8-bit integers, one scale per output channel",
        "Activations": "8-bit integers, with ranges fixed by calibration",
        "Embeddings": "stay in 32-bit float",
        "Weight codes": "chosen so that 16-bit sums cannot saturate and every CPU answers alike",
        "Ranges from": "percentile observer at 99.99 %",
        "Smoothing": "SmoothQuant, alpha 0.5",
        "Left out on request": "head",
    }


def test_words_of_w4() -> None:
    words = scheme_words(Scheme(name="w4", weights=4, embeddings=4, block_size=64, accuracy_level=4))
    assert words["Weights"] == "4-bit integers, one 32-bit scale per block of 64"
    assert words["Embeddings"] == "4-bit integers, one 32-bit scale per block of 32"
    assert words["Products"] == "inputs rounded to 8-bit integers (accuracy_level 4)"
    assert "Weight codes" not in words and "Ranges from" not in words


def test_words_of_keys_and_values() -> None:
    assert "Keys and values" not in scheme_words(Scheme(name="w4", weights=4))
    assert scheme_words(Scheme(name="w", cache=16))["Keys and values"] == "float16"
    eight = SchemeFormats(Scheme(name="w", cache=8))
    assert eight.words()["Keys and values"] == "INT8, a scale for each channel of each head"
    assert eight.finer_settings([]) == ["cache = 16"]


def test_words_of_widened_blocks() -> None:
    words = scheme_words(Scheme(name="w", weights=4, activations="dynamic", scale_bits=16))
    assert words["Weights"] == (
        "4-bit integers, one 16-bit scale per block of 32, widened to 8 bits when the model is loaded"
    )
    assert words["Weight codes"].startswith("chosen so that")
    assert "Products" not in words


def test_words_of_weight_only_schemes() -> None:
    gptq = Scheme(name="w", weights=4, scale_bits=16, rounding="gptq")
    assert scheme_words(gptq)["Weights"] == "4-bit integers, one 16-bit scale per block of 32, rounded with GPTQ"
    words = scheme_words(Scheme(name="w8", weights=8, embeddings=16))
    assert words["Weights"] == "8-bit integers, one 32-bit scale per block of 32"
    assert words["Embeddings"] == "16-bit float, widened to 32 bits where they are used"
    assert "Weight codes" not in words


def test_words_tell_layers_with_rounded_inputs_from_those_in_float() -> None:
    dynamic = "8-bit integers, with ranges found at run time for every input"
    assert SchemeFormats(MIXED).words()["Activations"] == f"stay in float; *.attention.*: {dynamic}"
    static = SCHEMES.get("w8a8").model_copy(update={"overrides": (("out*", "int8-block"), ("up*", "int8-channel"))})
    assert SchemeFormats(static).words()["Activations"] == (
        "8-bit integers, with ranges fixed by calibration; out*: stay in float"
    )


def test_words_tell_lstms_whose_ranges_are_found_at_run_time() -> None:
    row = {"name": "W", "node": "n", "op": "lstm", "format": "int8-lstm", "megabytes": 1.0}
    formats = SchemeFormats(SCHEMES.get("w8a8"), [TensorFormat.model_validate(row)])
    assert formats.words()["Activations"] == (
        "8-bit integers, with ranges fixed by calibration; LSTMs: 8-bit integers, with ranges found at run time for "
        "every input"
    )
    assert formats.needs_ranges and formats.finds_ranges_at_run_time


def test_overrides_that_no_weight_follows_are_known() -> None:
    """One to fp32 stores none by its nature."""
    row = {
        "name": "W",
        "node": "words/Gather",
        "op": "table",
        "format": "fp16",
        "override": "words/*",
        "megabytes": 1.0,
    }
    assert SchemeFormats(MIXED, [TensorFormat.model_validate(row)]).idle_overrides == ["*.attention.*"]
    assert SchemeFormats(MIXED).idle_overrides == []  # nothing is known


def test_words_name_the_overrides() -> None:
    assert SchemeFormats(MIXED).words()["Overrides"] == (
        "*.attention.*: int8-channel; *.attention.out*: fp32; words/*: fp16"
    )
    assert "Overrides" not in scheme_words(SCHEMES.get("w4"))


def test_codes_of_the_checkpoint_are_told_apart() -> None:
    tensors = [
        TensorFormat(name=f"W{number}", node="n", op="linear", format=form, megabytes=1.0, given=given)
        for number, (form, given) in enumerate([("int4-block", True), ("int8-block", True), ("int4-block", False)])
    ]
    scheme = Scheme(name="t", weights=4, embeddings=4)
    plain, told = SchemeFormats(scheme).words(), SchemeFormats(scheme, tensors).words()
    assert told["Weights"] == f"codes of the checkpoint (1 x int4-block, 1 x int8-block); others: {plain['Weights']}"
    assert told["Embeddings"] == plain["Embeddings"]
