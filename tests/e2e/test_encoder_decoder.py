"""Models with an encoder and a decoder, from the command line: two graphs, judged as a chain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from changed_bundles import changed
from fixtures import LENIENT_TARGET, Edge
from repeating_models import save_repeating, save_tokenizer, texts, untrained

from pipeline.bundle.verify import verify

LIMITS = {"max_accuracy_drop": 10, "min_agreement": 0.9}
BUDGET = '\n[budgets.{}]\nlimit = {}\nrequired = true\nevidence = ["host"]\nsource = "assumption: a test"\n'
ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_repeating(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture
def strict(workspace: Path) -> list[str]:
    """Flags of a target whose budgets an untrained model misses, and of data."""
    target = LENIENT_TARGET.replace("limit = 100\n", "limit = 10\n") + BUDGET.format("min_agreement", 0.9)
    (workspace / "targets" / "strict.toml").write_text(target)
    for name, seed in (("calibration.txt", 1), ("evaluation.txt", 2)):
        (workspace / name).write_text("\n".join(texts(64, seed)) + "\n")
    return [
        *("--target", "strict", "--recipe", "w8a8"),
        *("--calibration-data", "calibration.txt", "--eval-data", "evaluation.txt"),
    ]


def spoiled(bundle: Path, file: str) -> Path:
    """A copy in which the codes of one graph's weights are in another order."""
    generator = np.random.default_rng(0)

    def shuffle(value: ir.Value) -> None:
        assert value.const_value is not None
        codes = value.const_value.numpy()
        if codes.dtype.kind in "iu" and codes.ndim == 2:
            value.const_value = ir.tensor(generator.permutation(codes.ravel()).reshape(codes.shape), name=value.name)

    return changed(bundle, f"spoiled-{file}", shuffle, file)


@pytest.mark.slow
def test_a_t5_from_its_folder_to_a_gated_bundle(
    edge: Edge, strict: list[str], workspace: Path, repeating: Path
) -> None:
    done = edge("export", "--model", str(repeating), *strict, "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no texts that the decoder should say" in " ".join(done.stdout.split())
    bundle = workspace / "out" / "bundle"
    metadata = json.loads((bundle / "metadata.json").read_text())
    encoder, decoder = metadata["graphs"]
    assert (encoder["file"], "feeds" in encoder) == (ENCODER, False)
    assert decoder["feeds"] == {
        "encoder_attention_mask": "attention_mask",
        "encoder_hidden_states": "last_hidden_state",
        "input_ids": "decoder_input_ids",
    }
    assert metadata["decoder"] == {"start": 0, "pad": 0, "longest": 32}
    report = json.loads((workspace / "out" / "report.json").read_text())
    assert [graph["name"] for graph in report["latency"]["graphs"]] == ["encoder_model", "decoder_model"]
    assert report["latency"]["shape"]["decoder_input_ids"] == [1, 32]
    assert report["coverage"]["weights"]["value"] > 0.9
    (accuracy,) = report["accuracy"]
    assert accuracy["scores"]["agreement"] > 0.95
    assert verify(bundle) == 0.0
    _says_texts_again(bundle)
    assert edge("check", str(bundle), "--target", "strict").returncode == 0
    assert "decoder_model.onnx" in edge("inspect", str(bundle)).stdout
    again = edge("gate", "--model", str(repeating), "--target", "strict", "--output", "out")
    assert again.returncode == 0, again.stdout + again.stderr
    for file in (ENCODER, DECODER):
        failed = edge("check", str(spoiled(bundle, file)), "--target", "strict")
        assert (failed.returncode, "FAIL max_accuracy_drop" in failed.stdout) == (1, True), failed.stdout


def _says_texts_again(bundle: Path) -> None:
    """As an app would: ONNX Runtime alone, one token after the other, by what metadata.json says of the decoder."""
    decoder = json.loads((bundle / "metadata.json").read_text())["decoder"]
    encode, decode = (ort.InferenceSession(bundle / file) for file in (ENCODER, DECODER))
    generator, right = np.random.default_rng(0), 0
    for _ in range(20):
        text = [*generator.integers(3, 27, 4).tolist(), 1]
        ids, mask = np.array([text]), np.ones((1, len(text)), np.int64)
        (states,) = encode.run(None, {"input_ids": ids, "attention_mask": mask})
        said = [decoder["start"]]
        while said[-1] != 1 and len(said) < decoder["longest"]:
            inputs = {"input_ids": np.array([said]), "encoder_hidden_states": states, "encoder_attention_mask": mask}
            said.append(int(decode.run(["logits"], inputs)[0][0, -1].argmax()))
        right += said[1:] == text
    assert right >= 8  # chance: none


@pytest.mark.slow
def test_texts_to_say_are_labels(edge: Edge, strict: list[str], workspace: Path, repeating: Path) -> None:
    rows = "".join(json.dumps({"text": text, "label": text}) + "\n" for text in texts(64, 2))
    (workspace / "pairs.jsonl").write_text(rows)
    flags = [*strict[:-1], "pairs.jsonl"]
    done = edge("export", "--model", str(repeating), *flags, "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = json.loads((workspace / "out" / "report.json").read_text())["accuracy"]
    assert (accuracy["labelled"], accuracy["primary"]) == (True, "token_accuracy")
    assert accuracy["scores"]["token_accuracy_float"] > 50


@pytest.mark.parametrize(
    ("flags", "settings", "message"),
    [
        (["--task", "text-classification"], {}, "has an encoder and a decoder"),
        (["--sequence-length", "128"], {}, "--sequence-length 128 is more than 'bart' takes: 64 tokens"),
        ([], {"decoder_start_token_id": None}, "has no decoder_start_token_id"),
        (["--recipe", "half-layers"], {}, "compression passes, which take models with one graph"),
    ],
)
def test_mistakes_are_told_by_a_dry_run(
    edge: Edge, strict: list[str], tmp_path: Path, flags: list[str], settings: dict[str, object], message: str
) -> None:
    folder = tmp_path / "bart"
    untrained("Bart").save_pretrained(folder)
    save_tokenizer(folder)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | settings))
    done = edge("export", "--model", str(folder), *strict, *flags, "--dry-run")
    assert (done.returncode, message in " ".join(done.stderr.split())) == (2, True), done.stderr
