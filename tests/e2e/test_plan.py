"""`edge plan` from the command line: a config.json in, figures for every scheme and an exit code out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures import Edge

LLAMA: dict[str, Any] = {
    **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 400},
    **{"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "max_position_embeddings": 4096},
}
ONE_BILLION = {
    **{"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    **{"head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True},
}
TRILLIONS = {
    **{"hidden_size": 40960, "num_hidden_layers": 90, "num_attention_heads": 320, "num_key_value_heads": 32},
    **{"head_dim": 128, "intermediate_size": 131072, "vocab_size": 128256},
}


@pytest.fixture
def config(workspace: Path):
    """Writes a config.json of a Llama with changes, and gives its path."""

    def write(name: str, **changes: Any) -> str:
        (workspace / name).mkdir(exist_ok=True)
        (workspace / name / "config.json").write_text(json.dumps(LLAMA | changes))
        return f"{name}/config.json"

    return write


def test_a_small_model_fits(edge: Edge, config) -> None:
    done = edge("plan", config("tiny"), "--target", "phone")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny: 125,248 parameters, 99,328 read for each token; on phone")
    assert any(line.startswith("w4a8 ") and line.rstrip().endswith("fits") for line in lines)
    assert "Note: No decode rates of the Qualcomm Snapdragon 7 Gen 4 (SM7750-AB) are known here" in done.stdout


def test_a_model_of_a_billion_leaves_memory_open(edge: Edge, config) -> None:
    model = config("one-billion", **ONE_BILLION)
    done = edge("plan", model, "--target", "phone", "--context", "2048", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["parameters"], found["cache_bytes_per_token"]) == (1_235_814_400, 2 * 16 * 512 * 4)
    (w4a8,) = [scheme for scheme in found["schemes"] if scheme["scheme"] == "w4a8"]
    verdicts = {budget["metric"]: budget["verdict"] for budget in w4a8["budgets"]}
    assert (verdicts["bundle_mb"], verdicts["peak_memory_mb"], w4a8["verdict"]) == ("fits", "unsure", "unsure")
    assert w4a8["tokens_per_s_full"]["typical"] < w4a8["tokens_per_s"]["typical"]


def test_smaller_keys_and_values_take_less_memory(edge: Edge, config) -> None:
    model = config("one-billion", **ONE_BILLION)
    found = [
        json.loads(edge("plan", model, "--context", "2048", "--json", *flag).stdout) for flag in ((), ("--cache", "8"))
    ]
    assert [each["cache_bytes_per_token"] for each in found] == [2 * 16 * 512 * 4, 2 * 16 * 512]
    larger, smaller = (each["schemes"][0]["memory_mb"]["typical"] for each in found)
    assert larger - smaller == pytest.approx(2 * 2048 * 2 * 16 * 512 * 3 / 1e6)
    assert "cache: Input should be 32, 16 or 8 (given: 3)" in edge("plan", model, "--cache", "3").stderr


def test_a_model_of_trillions_says_how_many_devices(edge: Edge, config) -> None:
    """7.2 TB of float32 on accelerators of 80 GB."""
    done = edge("plan", config("huge", **TRILLIONS), "--target", "phone", "--device-memory", "80GB")
    assert done.returncode == 1, done.stdout + done.stderr
    (fp32,) = [line for line in done.stdout.splitlines() if line.startswith("fp32 ")]
    assert fp32.split()[1:3] == ["7.2", "TB"]
    assert " 90  no: size, memory" in fp32
    said = " ".join(done.stdout.split())
    assert "huge: 1.79 trillion parameters" in said
    assert "No scheme fits phone (size up to 1.2 GB, memory up to 1.5 GB): that leaves 0.0054 bits" in said


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({}, ["--context", "9999"], "--context 9999 is beyond the 4096 tokens that the model takes (config.json)."),
        ({}, ["--device-memory", "much"], "'much' is not a size."),
        ({}, ["--device-memory", "0"], "A device's memory of 0 holds nothing."),
        ({"num_hidden_layers": 5000}, [], "config.json of 'bad' has 5000 layers; 1 to 2,000 are laid out."),
        ({"architectures": ["BertModel"]}, [], "'bad' is a BertModel, no language model: forecasts are of models"),
    ],
)
def test_bad_input(edge: Edge, config, changes: dict[str, Any], more: list[str], said: str) -> None:
    done = edge("plan", config("bad", **changes), "--target", "phone", *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
