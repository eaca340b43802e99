"""Bytes of sparse layers at the scheme's bits, and the note that zeros do not run faster."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.report_types import PassReport
from pipeline.core.types import Json, Scheme
from pipeline.quantize.schemes import SCHEMES
from pipeline.report.pass_tables import pass_tables, pass_words
from pipeline.report.sparsity import sparsity_notes, with_storage

LINEAR = {"layer": "a", "kind": "Linear", "values": 80_000, "zeros": 40_000, "sparsity": 0.5}
CONV = {"layer": "b", "kind": "Conv2d", "values": 8_000, "zeros": 6_000, "sparsity": 0.75}
SMALL = {"layer": "c", "kind": "Linear", "values": 800, "zeros": 400, "sparsity": 0.5}
FACTS = {"pass": "sparsify", "scope": "layer", "sparsity": 0.522, "layers": [LINEAR, CONV, SMALL]}


def report(facts: dict[str, Json]) -> PassReport:
    return PassReport.model_validate({"parameters_before": 8, "parameters_after": 8, **facts})


def bytes_of(facts: dict[str, Any], scheme: str) -> list[tuple[int, int, int]]:
    stored = with_storage(report(facts), SCHEMES.get(scheme))
    return [(row["bits"], row["dense_bytes"], row["compressed_bytes"]) for row in stored.layers]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("fp32", [(32, 320_000, 160_000 + 10_000), (32, 32_000, 8_000 + 1_000), (32, 3_200, 1_600 + 100)]),
        ("fp16", [(16, 160_000, 80_000 + 10_000), (16, 16_000, 4_000 + 1_000), (32, 3_200, 1_600 + 100)]),
        ("w8a8-dynamic", [(8, 80_000, 40_000 + 10_000), (8, 8_000, 2_000 + 1_000), (32, 3_200, 1_600 + 100)]),
        ("w8a8", [(8, 80_000, 40_000 + 10_000), (8, 8_000, 2_000 + 1_000), (32, 3_200, 1_600 + 100)]),
        ("w4", [(4, 40_000, 20_000 + 10_000), (8, 8_000, 2_000 + 1_000), (32, 3_200, 1_600 + 100)]),
    ],
)
def test_a_bitmask_and_the_values_at_the_bits_of_the_scheme(scheme: str, expected: list[tuple[int, int, int]]) -> None:
    assert bytes_of(FACTS, scheme) == expected


def test_a_pattern_stores_two_bits_for_every_value_that_stays() -> None:
    facts = {"pass": "sparsify", "pattern": "2:4", "sparsity": 0.5, "layers": [LINEAR]}
    assert bytes_of(facts, "w4") == [(4, 40_000, 20_000 + 10_000)]
    facts["pattern"] = "1:4"
    assert bytes_of(facts, "w4") == [(4, 40_000, 10_000 + 5_000)]


def test_the_note_says_that_zeros_run_dense() -> None:
    stored = with_storage(report({**FACTS, "layers": [LINEAR]}), SCHEMES.get("w8a8"))
    assert (stored.own["dense_bytes"], stored.own["compressed_bytes"]) == (80_000, 50_000)
    assert sparsity_notes([report({"pass": "sparsify"}), stored, report({"pass": "distill"})]) == [
        "sparsify: 52.2 % of the weights of 1 layer are zero, and run dense: no speed-up on this target, since ONNX "
        "Runtime's CPU kernels multiply by zeros too. Compressed storage (values and a bitmask) would take 0.05 MB for "
        "them instead of 0.08 MB, scales not counted; the bundle stores them dense."
    ]
    patterned = with_storage(report({**FACTS, "pattern": "2:4"}), SCHEMES.get("w8a8"))
    assert "3 layers" in sparsity_notes([patterned])[0]
    assert "(values and their places in 2:4)" in sparsity_notes([patterned])[0]


def test_other_passes_have_no_storage_and_no_note() -> None:
    step = report({"pass": "prune", "layers": [{"layer": "a", "before": 4, "after": 2}]})
    assert with_storage(step, Scheme(name="any")) == step
    assert sparsity_notes([step]) == []


def test_lists_of_records_become_tables() -> None:
    facts = {"pass": "x", "ratio": 0.5, "curve": [{"step": 1}], "keep": [1, 2], "none": []}
    facts["layers"] = [{"before": 4, "layer": "a", "reason": "big"}, {"before": 1234567, "layer": "b", "more": None}]
    facts["skipped"] = [{"name": "c", "reason": "odd"}, {"name": "d", "reason": "even", "size": 3}]
    parameters = {"parameters_before": 8, "parameters_after": 8}
    assert pass_words(report(facts)) == {"ratio": 0.5, "keep": [1, 2], "none": [], **parameters}
    headings = ["layer", "reason", "before", "more"]
    assert pass_tables(report(facts)) == {
        "layers": (headings, [["a", "big", "4", ""], ["b", "", "1234567", "none"]]),
        "skipped": (["name", "reason", "size"], [["c", "odd", ""], ["d", "even", "3"]]),
    }


def test_what_a_pass_did_not_say_is_not_in_its_json() -> None:
    facts = {"pass": "x", "parameters_before": 2, "parameters_after": 1, "notes": [], "neurons_before": 4}
    assert PassReport.model_validate(facts).model_dump(mode="json") == facts
    assert PassReport.model_validate(facts).own == {"neurons_before": 4}
