"""How the end-to-end tests start `edge`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**changes: str) -> dict[str, str]:
    """This process's, with the package importable and no display settings that change the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("EDGE_STORE", "COLUMNS", "FORCE_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **changes}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]
