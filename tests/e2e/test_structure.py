"""Exports whose recipes change a model's structure as a whole: its layers and its vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

_TRIM = 'pass = "prune"\nunit = "tokens"\ndata = "calibration.txt"\n'


def recipe(workspace: Path, name: str, scheme: str, *passes: str) -> None:
    (workspace / "recipes").mkdir(exist_ok=True)
    tables = "".join(f"[[passes]]\n{table}" for table in passes)
    (workspace / f"recipes/{name}.toml").write_text(f'title = "{name}"\nscheme = "{scheme}"\n{tables}')


def data_bytes(workspace: Path) -> int:
    return (workspace / "out/bundle/model.onnx").stat().st_size


@pytest.mark.slow
def test_a_trimmed_vocabulary_takes_its_rows_out_of_the_bundle(edge, tiny, workspace) -> None:
    recipe(workspace, "trim", "fp32", _TRIM.replace('"calibration.txt"', '["calibration.txt", "evaluation.txt"]'))
    edge("export", *tiny, "--recipe", "fp32")
    before = data_bytes(workspace)
    done = edge("export", *tiny, "--recipe", "trim")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    (facts,) = report["passes"]
    rows = facts["tokens_before"] - facts["tokens_after"]
    assert rows > 50
    assert before - data_bytes(workspace) == pytest.approx(rows * 32 * 4, abs=64)  # sizes themselves are stored too
    # the corpus has all words of the evaluation texts, so that nothing changes for them
    assert report["figures"]["max_accuracy_drop"]["value"] < 1e-3


@pytest.mark.slow
def test_the_bundle_of_passes_in_a_row_has_its_own_tokenizer(edge, tiny, workspace) -> None:
    layers, heads = (f'pass = "prune"\nunit = "{unit}"\nratio = 0.5\n' for unit in ("layers", "heads"))
    recipe(workspace, "chain", "w8a8-dynamic", layers, _TRIM, heads)
    done = edge("export", *tiny, "--recipe", "chain")
    assert done.returncode == 0, done.stderr
    report = json.loads((workspace / "out/report.json").read_text())
    shallow, trimmed, narrow = report["passes"]
    assert trimmed["metric_before"] == shallow["metric_after"]
    assert narrow["metric_before"] == trimmed["metric_after"]
    assert narrow["config"] == {"num_hidden_layers": 1, "pad_token_id": 0, "vocab_size": trimmed["tokens_after"]}
    bundle = workspace / "out/bundle"
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == trimmed["tokens_after"]
    ids = [tokenizer.encode("a cat wants bread").ids]
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "attention_mask": [[1] * len(ids[0])], "token_type_ids": [[0] * len(ids[0])]}
    assert session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})[0].shape == (1, 32)
    again = edge("gate", "--target", "lenient", "--output", "out")
    assert again.returncode == 0, again.stderr
    checked = json.loads((workspace / "out/report.json").read_text())["figures"]
    assert checked["max_accuracy_drop"]["value"] == report["figures"]["max_accuracy_drop"]["value"]


@pytest.mark.slow
def test_a_narrower_encoder_says_that_its_embeddings_change(edge, tiny, workspace) -> None:
    narrow = 'pass = "prune"\nunit = "hidden"\nratio = 0.5\nround_to = 16\n'
    recipe(workspace, "refused", "fp32", narrow)
    done = edge("export", *tiny, "--recipe", "refused")
    assert done.returncode == 3
    assert "it would have 16 values instead of 32" in done.stderr
    recipe(workspace, "narrow", "fp32", f"{narrow}change_output = true\n")
    done = edge("export", *tiny, "--recipe", "narrow")
    assert done.returncode == 0, done.stderr
    metadata = json.loads((workspace / "out/bundle/metadata.json").read_text())
    assert metadata["graphs"][0]["outputs"][0]["shape"][-1] == 16
