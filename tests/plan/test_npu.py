"""Which stages a target with an NPU adds, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.loading import load_target
from pipeline.core.errors import UsageError
from pipeline.plan.npu import check_npu, context_stages, fixed_stages
from pipeline.plan.stage_titles import title_of
from pipeline.quantize.schemes import SCHEMES

PHONE, NPU = load_target("phone"), load_target("phone-npu")


def test_schemes_of_npus_are_for_targets_with_one() -> None:
    check_npu(NPU, SCHEMES.get("w8a8-npu"))
    check_npu(NPU, SCHEMES.get("w8a8"))
    with pytest.raises(UsageError, match="for NPUs, and the target phone names none"):
        check_npu(PHONE, SCHEMES.get("w8a8-npu"))


def test_without_the_compiler_a_note_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    stages, (note,) = context_stages(NPU, "write")
    assert stages == []
    assert note.startswith("Nothing was compiled for the NPU: ")
    assert context_stages(PHONE, "write") == ([], [])


def test_targets_without_an_npu_add_nothing() -> None:
    assert fixed_stages(PHONE, None, "trace.float", "samples.evaluation") == []  # type: ignore[arg-type]
    assert title_of("context.SM8750") == "compile for SM8750"
