"""What an app developer does with a bundle folder: follow its README, and load it from bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer

from benchmarks.clients import (
    SENTENCES,
    in_chromium,
    in_node,
    in_python,
    worst,
)

_NO_TORCH = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'transformers', 'pipeline')))\n"
_SAME = 1e-3
"""Of the largest value: kernels sum in another order; the tiny model's outputs come to lie at no rounding's edge."""


def snippet(bundle: Path, language: str) -> str:
    """The code of a language in the bundle's README."""
    found = re.search(rf"```{language}\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def golden(bundle: Path) -> tuple[list[str], list[np.ndarray]]:
    """The texts of the golden samples, and the embeddings that they must give."""
    record = json.loads((bundle / "golden/golden.json").read_text())
    output = record["outputs"][0]
    return record["texts"], [np.load(bundle / f"golden/{n}/{output['file']}") for n in range(len(record["texts"]))]


def test_the_python_of_the_readme_runs_without_torch(exported, workspace) -> None:
    bundle = workspace / "out/bundle"
    done = subprocess.run(
        [sys.executable, "-c", _NO_TORCH + snippet(bundle, "python")],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{'sentence_embedding': (2, 32)}\n", done.stderr


def test_texts_through_the_shipped_tokenizer_give_the_golden_outputs_from_bytes(exported, workspace) -> None:
    bundle = workspace / "out/bundle"
    session = ort.InferenceSession((bundle / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    for text, expected in zip(*golden(bundle), strict=True):
        encoded = tokenizer.encode(text)
        assert all(encoded.attention_mask)  # not padded to a length that nobody asked for
        feed = {entry.name: np.array([getattr(encoded, parts[entry.name])]) for entry in session.get_inputs()}
        assert np.allclose(session.run(None, feed)[0], expected, atol=1e-5)


def test_readme_says_what_is_in_the_folder(exported, workspace) -> None:
    text = (workspace / "out/bundle/README.md").read_text()
    metadata = json.loads((workspace / "out/bundle/metadata.json").read_text())
    assert f"Apps need **ONNX Runtime {metadata['requires']['onnxruntime']}** or newer" in text
    assert "| `model.onnx` | input | `input_ids` | int64 | [batch, sequence] |" in text
    assert "Texts are cut at 32 tokens" in text
    assert "The model's folder states none: ask whoever published the model before you ship it." in text


def test_verify_says_what_it_checked(edge, exported, workspace) -> None:
    done = edge("verify", "out/bundle")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out/bundle is whole, and gives its golden outputs here (largest difference: ")
    (workspace / "out/bundle/README.md").write_text("other")
    done = edge("verify", "out/bundle")
    assert done.returncode == 2
    assert done.stderr.startswith("error: The bundle out/bundle is damaged: README.md ")


def test_a_runtime_that_is_too_old_is_told_before_anything_runs(edge, exported, workspace) -> None:
    metadata = json.loads((workspace / "out/bundle/metadata.json").read_text())
    metadata["requires"]["onnxruntime"] = "9.0"
    (workspace / "out/bundle/metadata.json").write_text(json.dumps(metadata))
    _resealed(workspace / "out/bundle")
    for command in ("verify", "check"):
        done = edge(command, "out/bundle")
        assert done.returncode == 2
        assert f"needs ONNX Runtime 9.0 or newer (opset 23); {ort.__version__} is installed." in done.stderr


def _resealed(bundle: Path) -> None:
    """A manifest of the files as they are."""
    from pipeline.bundle.manifest import MANIFEST, write_manifest  # noqa: PLC0415

    provenance = json.loads((bundle / MANIFEST).read_text())["provenance"]
    (bundle / MANIFEST).unlink()
    write_manifest(bundle, provenance)


@pytest.mark.slow
def test_an_older_runtime_gets_an_older_opset(edge, tiny, workspace) -> None:
    done = edge("export", *tiny, "--min-onnxruntime", "1.20")
    assert done.returncode == 0, done.stderr
    metadata = json.loads((workspace / "out/bundle/metadata.json").read_text())
    assert metadata["requires"]["opsets"] == {"ai.onnx": 21}
    notes = " ".join(json.loads((workspace / "out/report.json").read_text())["notes"])
    assert "The graph is written in opset 21 for ONNX Runtime 1.20, instead of 23" in notes
    assert "Apps need ONNX Runtime 1.18 or newer" in notes


def test_a_scheme_that_an_older_runtime_lacks_is_refused_with_what_would_do(edge, tiny) -> None:
    done = edge("export", *tiny, "--recipe", "w8", "--min-onnxruntime", "1.20")
    assert done.returncode == 3
    assert "The bundle would need ONNX Runtime 1.22 (MatMulNBits of 8 bits), not 1.20." in done.stderr
    assert "Ask for --min-onnxruntime 1.22" in done.stderr


def test_layout_of_the_target(edge, tiny, workspace) -> None:
    target = workspace / "targets/lenient.toml"
    target.write_text(target.read_text() + '\n[bundle]\nlayout = "both"\n')
    done = edge("export", *tiny)
    assert done.returncode == 0, done.stderr
    files = json.loads((workspace / "out/bundle/manifest.json").read_text())["files"]
    assert {name for name in files if "onnx" in name} == {
        *("model.onnx", "mapped/model.onnx", "mapped/model.onnx.data")
    }
    assert edge("verify", "out/bundle").returncode == 0


@pytest.mark.slow
def test_layout_of_a_client(edge, exported, tiny, workspace) -> None:
    """The flag goes before the target's; what is quantized stays the same, and the states that the client pools come
    beside the embedding."""
    plain = workspace / "out/bundle"
    done = edge("export", *tiny[:-1], "client", "--layout", "transformers.js")
    assert done.returncode == 0, done.stderr
    bundle = workspace / "client/bundle"
    metadata = json.loads((bundle / "metadata.json").read_text())
    assert metadata["layout"] == "transformers.js"
    assert [graph["file"] for graph in metadata["graphs"]] == ["onnx/model_quantized.onnx"]
    assert [one["name"] for one in metadata["graphs"][0]["outputs"]] == ["sentence_embedding", "last_hidden_state"]
    assert not (bundle / "model.onnx").exists()
    assert weights(bundle / "onnx/model_quantized.onnx") == weights(plain / "model.onnx")
    assert golden(bundle)[0] == golden(plain)[0]
    assert np.allclose(golden(bundle)[1], golden(plain)[1], atol=1e-6)
    assert edge("verify", "client/bundle").returncode == 0
    assert edge("check", "client/bundle", "--target", "lenient").returncode == 0


def weights(path: Path) -> dict[str, bytes]:
    """The codes of a graph's quantized weights, by name."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    return {name: array.tobytes() for name, array in stored.items() if array.dtype in (np.int8, np.uint8)}


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_layout_that_has_no_names_for_the_task_is_refused(edge, tiny, more) -> None:
    done = edge("export", *tiny, "--task", "generic", "--layout", "optimum", *more)
    assert done.returncode == 2
    assert "The layout 'optimum' has no names for generic." in done.stderr
    assert "Layouts that this model can have: single, mapped, both." in done.stderr


def test_an_unknown_layout_is_refused_with_those_that_there_are(edge, tiny) -> None:
    done = edge("export", *tiny, "--layout", "coreml")
    assert done.returncode == 2
    assert "layout: Input should be 'single', 'mapped', 'both', 'transformers.js'" in done.stderr


@pytest.mark.slow
def test_javascript_of_the_readme_gives_the_golden_outputs(exported, workspace, clients, tmp_path) -> None:
    bundle, modules = workspace / "out/bundle", clients.node_modules
    assert worst(bundle, lambda sample: in_node(bundle, sample, modules)) < _SAME
    assert worst(bundle, lambda sample: in_chromium(bundle, sample, modules, tmp_path / "page.png")) < _SAME


@pytest.mark.slow
def test_transformers_js_gives_the_golden_outputs(edge, tiny, workspace, clients, tmp_path) -> None:
    assert edge("export", *tiny, "--layout", "transformers.js").returncode == 0
    bundle, modules = workspace / "out/bundle", clients.node_modules
    assert worst(bundle, lambda sample: in_node(bundle, sample, modules)) < _SAME
    assert worst(bundle, lambda sample: in_chromium(bundle, sample, modules, tmp_path / "page.png")) < _SAME


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["sentence-transformers", "optimum"])
def test_python_of_the_readme_gives_the_golden_outputs(edge, tiny, workspace, clients, layout) -> None:
    assert edge("export", *tiny, "--layout", layout).returncode == 0
    bundle = workspace / "out/bundle"
    try:
        interpreter = clients.python("sentences", SENTENCES)
    except subprocess.CalledProcessError:
        pytest.skip("PyPI cannot be reached")
    assert worst(bundle, lambda sample: in_python(bundle, sample, interpreter)) < _SAME
