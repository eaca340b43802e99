"""Models and data as people bring them: how many of the kinds under tests/cases come out right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.row import Measured, Row

_ROOT = Path(__file__).parents[1]
CASES = (
    "reranker",
    "int32_onnx",
    "if_scalar",
    "decoder_past",
    "rnn",
    "csv",
    "short_positions",
    "zero_blocks",
    "batch_dependent",
    "rare_features",
    "rotary",
)


def right() -> Measured:
    """Cases whose tests all pass, the slow ones too, of so many cases."""
    passed = {case: _passes(_ROOT / "tests" / "cases" / f"test_{case}.py") for case in CASES}
    for case, good in passed.items():
        print(f"{case:<16} {'right' if good else 'WRONG'}")
    return Measured(sum(passed.values()), len(CASES))


def _passes(file: Path) -> bool:
    """pytest ends with 0 only if tests ran and all of them passed."""
    command = [sys.executable, "-m", "pytest", "-q", str(file)]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, check=False).returncode == 0


ROWS = [Row("cases.right", "cases", "cases in all", right)]
