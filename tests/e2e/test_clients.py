"""What an app developer does with a bundle folder: follow its README, and load it from bytes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

_NO_TORCH = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'transformers', 'pipeline')))\n"
_PACKAGES = ("onnxruntime-node", "onnxruntime-web", "@huggingface/transformers")


def snippet(bundle: Path, language: str) -> str:
    """The code of a language in the bundle's README."""
    found = re.search(rf"```{language}\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def golden(bundle: Path) -> tuple[list[str], list[np.ndarray]]:
    """The texts of the golden samples, and the embeddings that they must give."""
    record = json.loads((bundle / "golden/golden.json").read_text())
    (output,) = record["outputs"]
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


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript clients, from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node and npm")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *_PACKAGES]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("the npm registry cannot be reached")
    return folder


@pytest.mark.slow
def test_the_javascript_of_the_readme_gives_the_golden_outputs(exported, workspace, node_modules) -> None:
    bundle = workspace / "out/bundle"
    (bundle / "node_modules").symlink_to(node_modules / "node_modules")
    texts, expected = golden(bundle)
    code = snippet(bundle, "javascript").replace('["The first text.", "Another one."]', json.dumps(texts[:1]))
    code += "console.error(JSON.stringify(Array.from(outputs.sentence_embedding.data)));"
    (bundle / "client.mjs").write_text(code)
    done = subprocess.run(["node", "client.mjs"], cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stderr.splitlines()[-1]), expected[0][0], atol=1e-5)
