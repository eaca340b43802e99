"""A text encoder that takes fewer tokens than the target measures: CLIP's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text_models import SMALL, save_text_model

from pipeline.bundle.golden import golden_arrays, read_golden

CLIP = {**SMALL, "max_position_embeddings": 20, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
CLIP["num_hidden_layers"] = 1
NOTE = (
    "Texts are cut to 20 tokens, and measured so, instead of the target's 32: the model takes no more "
    "(max_position_embeddings in config.json)."
)
DATA = ["--calibration-data", "calibration.txt", "--calibration-samples", "16", "--eval-data", "evaluation.txt"]


def test_texts_are_cut_to_the_models_own_length(edge: Any, workspace: Path, save_tokenizer: Any) -> None:
    save_text_model(workspace / "clip", "CLIPTextModel", save_tokenizer, **CLIP)
    ending = "is open and the light is on and the engine and all the rest is off"
    texts = (f"the red door of house {number} {ending}" for number in range(16))
    (workspace / "evaluation.txt").write_text("\n".join(texts))
    asked = ["export", "-m", "clip", "--task", "feature-extraction", "-t", "lenient", *DATA]
    refused = edge(*asked, "--sequence-length", "21", "--dry-run")
    assert refused.returncode == 2
    assert "--sequence-length 21 is more than 'clip' takes: 20 tokens" in refused.stderr
    done = edge(*asked, "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert NOTE in json.loads(done.stdout)["notes"]
    bundle = workspace / "out" / "bundle"
    assert json.loads((bundle / "metadata.json").read_text())["max_length"] == 20
    assert golden_arrays(bundle, 0, read_golden(bundle).inputs)["input_ids"].shape[1] == 20
