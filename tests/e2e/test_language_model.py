"""A language model from its folder to a gated bundle that writes, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from changed_bundles import changed
from fixtures import LENIENT_TARGET, Edge
from language_models import CONTEXT, save_language_model

LIMITS = {"max_kl_per_token": 0.5, "min_agreement": 0.4}
BUDGET = """
[tasks.text-generation.budgets.{}]
limit = {}
required = true
evidence = ["host"]
source = "assumption: a test"
"""
SHAPE = '\n[tasks.text-generation]\nrecipe = "w4a8-language"\nshape = { sequence_length = 24, context_length = 64 }\n'
PROMPT = "the old captain sees"
GENAI = """
import json, sys
import onnxruntime_genai as genai
model, ids = genai.Model("."), json.loads(sys.argv[1])
parameters = genai.GeneratorParams(model)
parameters.set_search_options(max_length=len(ids) + 32, do_sample=False)
generator = genai.Generator(model, parameters)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
print([int(token) for token in generator.get_sequence(0)])
"""


@pytest.fixture
def asking(workspace: Path) -> list[str]:
    """Flags of a target that asks something of language models, and of data."""
    target = LENIENT_TARGET + SHAPE + "".join(BUDGET.format(*limit) for limit in LIMITS.items())
    target += BUDGET.format("min_tokens_per_s", 1) + BUDGET.format("max_repetition_increase", 90)
    (workspace / "targets" / "asking.toml").write_text(target)
    return ["--target", "asking", "--calibration-data", "calibration.txt", "--eval-data", "evaluation.txt"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("language") / "tiny-llama"
    size = save_tokenizer(folder, model_input_names=["input_ids", "attention_mask"])
    return save_language_model(folder, "llama", size)


def spoiled(bundle: Path) -> Path:
    """A copy in which the codes of each weight are in another order."""
    generator = np.random.default_rng(0)

    def shuffle(value: ir.Value) -> None:
        assert value.const_value is not None
        codes = value.const_value.numpy()
        if codes.dtype == np.uint8:
            value.const_value = ir.tensor(generator.permutation(codes.ravel()).reshape(codes.shape), name=value.name)

    return changed(bundle, "spoiled", shuffle)


@pytest.mark.slow
def test_a_llama_from_its_folder_to_a_bundle_that_writes(
    edge: Edge, asking: list[str], workspace: Path, llama: Path
) -> None:
    done = edge("export", str(llama), *asking, "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = workspace / "out" / "bundle"
    report = json.loads((workspace / "out" / "report.json").read_text())
    assert {entry["metric"] for entry in report["budgets"]} == {*LIMITS, "min_tokens_per_s", "max_repetition_increase"}
    (accuracy,) = report["accuracy"]
    assert (accuracy["primary"], accuracy["labelled"]) == ("next_token_accuracy", True)
    assert [read["tokens"] for read in report["decoding"]["prompts"]] == [16, 24]
    assert report["decoding"]["cache_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    texts = report["texts"]
    assert (texts["texts"], texts["tokens"]) == (32, 49)  # the last one is behind the 64 of the context
    assert 0 <= texts["same"] <= 1
    assert "Written behind the beginnings of 32 evaluation texts, 49 tokens each: " in " ".join(done.stdout.split())
    metadata = json.loads((bundle / "metadata.json").read_text())
    assert metadata["language"]["longest"] == 64
    assert metadata["max_length"] == 64
    assert (json.loads((bundle / "tokenizer.json").read_text())["truncation"], CONTEXT) == (None, 96)
    _writes_as_plain_onnx_runtime(edge, bundle)
    genai = json.loads((bundle / "genai_config.json").read_text())["model"]
    assert (genai["context_length"], genai["eos_token_id"], genai["decoder"]["num_key_value_heads"]) == (64, 3, 2)
    assert edge("verify", str(bundle)).returncode == 0
    _readme_writes(edge, bundle)
    long = edge("generate", str(bundle), "the dog " * 40)
    assert (long.returncode, "the bundle's context is 64" in long.stderr) == (2, True), long.stderr
    again = edge("check", str(bundle), "--target", "asking")
    assert (again.returncode, "NOT_MEASURED" in again.stdout) == (0, False), again.stdout
    failed = edge("check", str(spoiled(bundle)), "--target", "asking")
    assert (failed.returncode, "FAIL max_kl_per_token" in failed.stdout) == (1, True), failed.stdout


def _writes_as_plain_onnx_runtime(edge: Edge, bundle: Path) -> None:
    """`edge generate` against a loop that feeds the outputs back."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    ids = tokenizer.encode(PROMPT).ids
    said: list[int] = []
    feed = {
        f"past_key_values.{layer}.{kind}": np.zeros((1, 2, 0, 16), np.float32)
        for layer in (0, 1)
        for kind in ("key", "value")
    }
    new = ids
    while len(said) < 20:
        mask = np.ones((1, len(ids) + len(said)), np.int64)
        outputs = dict(zip(names, session.run(None, {"input_ids": [new], "attention_mask": mask, **feed}), strict=True))
        feed = {
            name.replace("present", "past_key_values"): value for name, value in outputs.items() if name != "logits"
        }
        token = int(outputs["logits"][0, -1].argmax())
        if token == 3:
            break
        said.append(token)
        new = [token]
    done = edge("generate", str(bundle), PROMPT, "--max-tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout == tokenizer.decode(said) + "\n"
    assert f"{len(said)} tokens behind a prompt of {len(ids)}" in done.stderr
    again = [
        edge("generate", str(bundle), PROMPT, "--temperature", "1", "--seed", seed).stdout for seed in ("1", "1", "2")
    ]
    assert again[0] == again[1] != again[2]


def _readme_writes(edge: Edge, bundle: Path) -> None:
    """The Python of the README, for ONNX Runtime alone and, where it is installed, for onnxruntime-genai."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    readme = (bundle / "README.md").read_text()
    _, plain = [part.partition("```")[0] for part in readme.split("```python\n")[1:]]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    prompt = "Once upon a time"
    said = edge("generate", str(bundle), prompt, "--max-tokens", "32").stdout.strip()
    expected = f"{tokenizer.decode(tokenizer.encode(prompt).ids)} {said}"
    found = subprocess.run([sys.executable, "-c", plain], cwd=bundle, capture_output=True, text=True, check=True)
    assert found.stdout.split() == expected.split()
    if find_spec("onnxruntime_genai") is not None:  # its own tokenizer does not read the test's
        ids = tokenizer.encode(prompt).ids
        found = subprocess.run(
            [sys.executable, "-c", GENAI, json.dumps(ids)], cwd=bundle, capture_output=True, text=True, check=True
        )
        assert tokenizer.decode(json.loads(found.stdout)[len(ids) :]).startswith(said)


PASSES = """
title = "One layer of two, narrower, and trained a little"
scheme = "fp32"

[[passes]]
pass = "prune"
unit = "layers"
keep = [1]
samples = 16

[[passes]]
pass = "prune"
unit = "ffn"
ratio = 0.5
samples = 16

[[passes]]
pass = "distill"
steps = 4
batch_size = 4
held_out = 0.2
judge_samples = 16
"""


@pytest.mark.slow
def test_a_model_that_passes_made_smaller_writes_as_transformers_runs_it(
    edge: Edge, asking: list[str], workspace: Path, llama: Path
) -> None:
    (workspace / "smaller.toml").write_text(PASSES)
    done = edge("export", str(llama), *asking, "--recipe", "smaller.toml", "--save-model", "--output", "smaller")
    assert done.returncode == 1, done.stdout + done.stderr  # random weights that lost a layer say something else
    assert "FAIL max_kl_per_token" in done.stdout
    bundle = workspace / "smaller" / "bundle"
    assert json.loads((bundle / "metadata.json").read_text())["language"]["layers"] == 1
    assert json.loads((bundle / "genai_config.json").read_text())["model"]["decoder"]["num_hidden_layers"] == 1
    config = json.loads((bundle / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 64)
    assert edge("generate", str(bundle), PROMPT, "--max-tokens", "20").stdout == _of_transformers(
        workspace / "smaller" / "compressed-model", bundle
    )


def _of_transformers(folder: Path, bundle: Path) -> str:
    """What the compressed PyTorch model writes behind the prompt."""
    import torch  # noqa: PLC0415  # as above
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    written = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20, pad_token_id=0)[0].tolist()
    said = written[len(ids) :]
    return tokenizer.decode(said[: said.index(3)] if 3 in said else said) + "\n"


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("heads", "pass 1 of recipe refused prunes attention heads; a language model's keys and values"),
        ("tokens", "pass 1 of recipe refused trims a vocabulary; text-generation judges single tokens"),
    ],
)
def test_passes_that_change_what_a_graph_continues_with_are_refused(
    unit: str, message: str, edge: Edge, asking: list[str], workspace: Path, llama: Path
) -> None:
    amount = 'data = ["calibration.txt"]' if unit == "tokens" else "ratio = 0.5"
    recipe = f'title = "Refused"\nscheme = "w4a8"\n[[passes]]\npass = "prune"\nunit = "{unit}"\n{amount}\n'
    (workspace / "refused.toml").write_text(recipe)
    done = edge("export", str(llama), *asking, "--recipe", "refused.toml", "--dry-run")
    assert (done.returncode, message in " ".join(done.stderr.split())) == (2, True), done.stdout + done.stderr


@pytest.mark.slow
def test_problems_that_the_model_solves_by_writing(edge: Edge, asking: list[str], workspace: Path, llama: Path) -> None:
    """The right answers are what transformers writes with the float model, but for four that nobody would."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    model, tokenizer = AutoModelForCausalLM.from_pretrained(llama), AutoTokenizer.from_pretrained(llama)
    prompts = [" ".join(line.split()[:4]) for line in (workspace / "evaluation.txt").read_text().splitlines()[:20]]
    rows = []
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        said = model.generate(ids, do_sample=False, max_length=65)[0, ids.shape[1] :]  # the last is behind the context
        answer = tokenizer.decode(said, skip_special_tokens=True)
        rows.append({"prompt": prompt, "answer": ["#### never", answer] if number % 5 else "never"})
    (workspace / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    limit = ("--budget", "max_exact_match_drop=79")
    done = edge(
        "export", str(llama), *asking, "--eval-data", "problems.jsonl", *limit, "--recipe", "w8", "--output", "solved"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((workspace / "solved" / "report.json").read_text())
    (found,) = report["exact_match"]
    assert (found["dataset"], found["problems"], found["right_float"], found["chat"]) == ("problems", 20, 16, False)
    assert found["right"] == 16 - found["lost"]  # it writes none of the four others either
    (budget,) = (one for one in report["budgets"] if one["metric"] == "max_exact_match_drop")
    assert budget["figure"]["value"] == pytest.approx(5 * (16 - found["right"]))
    assert f"{found['right']} solved, 16 in float" in " ".join(done.stdout.split())
    again = edge("check", str(workspace / "solved" / "bundle"), "--target", "asking", *limit)
    assert f"{found['right']} solved, 16 in float" in " ".join(again.stdout.split()), again.stdout


@pytest.mark.slow
def test_keys_and_values_in_8_bits(edge: Edge, asking: list[str], workspace: Path, llama: Path) -> None:
    """From the flag to a bundle whose README writes, and whose gate sees a scale that is wrong."""
    done = edge("export", str(llama), *asking, "--recipe", "w4a8", "--cache", "8", "--output", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = workspace / "small" / "bundle"
    report = json.loads((workspace / "small" / "report.json").read_text())
    assert report["decoding"]["cache_bytes_per_token"] == 2 * 2 * 2 * 16
    assert [output["name"] for output in report["quantization"]["outputs"]] == ["logits"]  # the others are codes
    metadata = json.loads((bundle / "metadata.json").read_text())
    assert (metadata["language"]["cache"], metadata["scheme"]["cache"]) == ("int8", 8)
    assert metadata["requires"]["onnxruntime"] == "1.27"
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert {entry.type for entry in session.get_inputs()[2:]} == {"tensor(int8)"}
    last = {file.name: np.load(file) for file in (bundle / "golden" / "3").glob("input-*.npy")}
    assert (last["input-0.npy"].shape, last["input-2.npy"].dtype) == ((1, 1), np.int8)  # a token, and keys before it
    assert edge("verify", str(bundle)).returncode == 0
    _readme_writes(edge, bundle)
    failed = edge("check", str(_with_scales(bundle, 32.0)), "--target", "asking")
    assert (failed.returncode, "FAIL max_kl_per_token" in failed.stdout) == (1, True), failed.stdout


def _with_scales(bundle: Path, times: float) -> Path:
    """A copy in which the scales of one layer's keys and values are wrong."""

    def divide(value: ir.Value) -> None:
        assert value.name is not None and value.const_value is not None
        if value.name.startswith("present.0.") and ".scale" in value.name:
            value.const_value = ir.tensor(value.const_value.numpy() / np.float32(times), name=value.name)

    return changed(bundle, "wrong-scales", divide)


@pytest.mark.slow
def test_keys_and_values_in_halves_beside_weights_in_float(
    edge: Edge, asking: list[str], workspace: Path, llama: Path
) -> None:
    done = edge("export", str(llama), *asking, "--recipe", "fp32", "--cache", "16", "--output", "halves")
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = workspace / "halves" / "bundle"
    report = json.loads((workspace / "halves" / "report.json").read_text())
    assert report["decoding"]["cache_bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    assert json.loads((bundle / "metadata.json").read_text())["language"]["cache"] == "float16"
    _readme_writes(edge, bundle)


def test_bits_that_no_cache_has_are_refused(edge: Edge, asking: list[str], llama: Path) -> None:
    done = edge("export", str(llama), *asking, "--cache", "4", "--dry-run")
    assert (done.returncode, "cache: Input should be 32, 16 or 8 (given: 4)" in done.stderr) == (2, True), done.stderr


def test_a_model_that_keeps_nothing_is_refused(edge: Edge, tiny: list[str]) -> None:
    done = edge("export", *tiny, "--cache", "8", "--dry-run")
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stderr
    assert "keeps keys and values in 8 bits; " in said
    assert "which keeps none. Leave cache out: it is for models that do text-generation." in said


def test_a_runtime_without_a_kernel_is_refused(edge: Edge, asking: list[str], llama: Path) -> None:
    flags = ("--cache", "8", "--min-onnxruntime", "1.26", "--dry-run")
    done = edge("export", str(llama), *asking, *flags)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout
    assert "Keys and values in 8 bits need ONNX Runtime 1.27, not 1.26: older ones have no kernel for them." in said
