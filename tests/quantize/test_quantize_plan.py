from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.core.digest import pretty_json
from pipeline.quantize.plan import LeftEntry, LinearEntry, QuantizationPlan, TableEntry

PLAN = QuantizationPlan(
    linears=(
        LinearEntry(node="a", weight="A", method="static", k=4, n=2, activation_scale=0.1, activation_zero_point=3),
        LinearEntry(node="b", weight="B", method="block", k=4, n=2, block_size=32),
    ),
    tables=(TableEntry(node="t", weight="T", bits=4, block_size=16),),
    left_in_float=(LeftEntry(weight="C", op_type="Conv", bytes=8, reason="r"),),
)


def test_plan_comes_back_from_its_file() -> None:
    assert QuantizationPlan.model_validate_json(pretty_json(PLAN.model_dump(mode="json"))) == PLAN


@pytest.mark.parametrize(
    "change", [{"method": "magic"}, {"k": "four"}, {"groups": 2}, {"activation_scale": float("nan")}]
)
def test_what_no_writer_knows_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LinearEntry.model_validate({**PLAN.linears[0].model_dump(), **change})
