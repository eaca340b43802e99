"""Runs compression passes as the runner does, on texts of random tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.compress import PREVIOUS_PASS, find_pass
from pipeline.core.artifact import Artifact
from pipeline.core.model_spec import ModelSpec
from pipeline.core.registry import load_attribute
from pipeline.core.stage import MODEL, StageContext
from pipeline.core.types import Scheme, silent
from pipeline.data.samples import write_samples


def token_samples(folder: Path, tokens: int = 180, count: int = 24) -> Artifact:
    """Texts of 3 to 11 tokens, none of them below 5."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    lengths = [3 + number % 9 for number in range(count)]
    rows = (
        {"input_ids": generator.integers(5, tokens, (1, n)), "attention_mask": np.ones((1, n), np.int64)}
        for n in lengths
    )
    write_samples(folder, rows)
    return Artifact(folder, "samples.calibration", "k", "d", {})


def run_pass(
    table: dict[str, Any], source: ModelSpec, inputs: dict[str, Artifact], out: Path
) -> tuple[dict[str, Any], dict[str, Artifact]]:
    """The facts, and the inputs of the next pass."""
    kind = find_pass(table).kind
    config = kind.from_data({key: value for key, value in table.items() if key != "pass"}, "pass 1")
    values = {
        "pass": config.model_dump(mode="json"),
        "scheme": Scheme(name="fp32").model_dump(mode="json"),
        "limits": {},
    }
    out.mkdir()
    facts = load_attribute(kind.run)(StageContext(values, inputs, out, silent, models={MODEL: source}))
    return facts, {**inputs, PREVIOUS_PASS: Artifact(out, "compress.0.prune", "k", "d", facts)}
