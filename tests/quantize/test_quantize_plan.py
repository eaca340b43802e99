from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from pipeline.core.digest import pretty_json
from pipeline.formats.format import Entry
from pipeline.formats.int_block import Int4Block
from pipeline.formats.integer_product import InputRounding
from pipeline.quantize.plan import LeftEntry, QuantizationPlan

BLOCKS = {"block_size": 32, "scale_bits": 32, "accuracy_level": 0}
PLAN = QuantizationPlan(
    linears=(
        Entry(
            node="a",
            weight="A",
            op="linear",
            format="int8-channel",
            shape=(4, 2),
            input={"ranges": "calibrated", "scale": 0.1, "zero_point": 3},
        ),
        Entry(node="b", weight="B", op="linear", format="int4-block", shape=(4, 2), parameters=BLOCKS),
    ),
    tables=(Entry(node="t", weight="T", op="table", format="int4-block", shape=(8, 4), parameters=BLOCKS),),
    left_in_float=(LeftEntry(weight="C", op_type="Conv", bytes=8, reason="r"),),
)


def test_plan_comes_back_from_its_file() -> None:
    assert QuantizationPlan.model_validate_json(pretty_json(PLAN.model_dump(mode="json"))) == PLAN


@pytest.mark.parametrize("change", [{"op": "magic"}, {"shape": ["four", 2]}, {"groups": 2}])
def test_what_no_plan_has_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Entry.model_validate({**PLAN.linears[0].model_dump(), **change})


@pytest.mark.parametrize("change", [{"ranges": "magic"}, {"scale": float("nan")}, {"zero_point": "z"}])
def test_what_no_product_knows_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InputRounding.model_validate({**PLAN.linears[0].input, **change})


@pytest.mark.parametrize("change", [{"block_size": "four"}, {"scale_bits": 8}, {"groups": 2}])
def test_what_a_format_does_not_know_is_refused(change: dict[str, object]) -> None:
    entry = PLAN.linears[1].model_copy(update={"parameters": {**BLOCKS, **change}})
    node = ir.node("MatMul", [ir.val("x"), ir.val("B")], name="b")
    ir.Graph([], [], nodes=[node], opset_imports={"": 23})
    arrays = {"B.codes": np.zeros((2, 1, 16), np.uint8), "B.scales": np.ones((2, 1), np.float32)}
    with pytest.raises(ValidationError):
        Int4Block.emit(node, entry, arrays, {})
