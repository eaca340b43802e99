"""One valid input of every kind, made once: what the bad ones are made from."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

TARGET = """title = "A device that takes anything"
recipe = "w8a8-dynamic"

[device]
soc = "any"
isa = ["asimd"]
memory_mb = 1000
bandwidth_gb_s = 10.5
clusters = [{ core = "any", count = 1, clock_mhz = 1000 }]

[device.sources]
soc = "assumption: a test"
clusters = "assumption: a test"
isa = "assumption: a test"
memory_mb = "assumption: a test"
bandwidth_gb_s = "assumption: a test"

[runtime]
threads = 1
session_config = { "session.disable_prepacking" = "0" }

[shape]
batch_size = 1
sequence_length = 16

[budgets.bundle_mb]
limit = 10
required = true
evidence = ["host"]
source = "assumption: a test"
"""
RECIPE = """title = "Everything that a recipe may say"
task = "text-classification"

[scheme]
base = "w8a8-dynamic"
smoothing = 0.5
nodes_to_exclude = ["nothing*"]

[calibration]
data = "texts.txt"
samples = 12

[inputs.x]
shape = ["batch", 3, 8, 8]
dtype = "float32"

[preprocessing]
resize = [8, 8]
rescale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[[passes]]
pass = "low_rank"
"""
STREAM_RECIPE = """title = "A streaming model"
scheme = "w8a8-dynamic"

[inputs.x]
shape = ["batch", 4]
dtype = "float32"

[inputs.h]
shape = ["batch", 3]
next = "hn"
"""
HEADS = {
    "inputs": STREAM_RECIPE,
    "ctc": """title = "Texts"
scheme = "w8a8-dynamic"
task = "text-recognition"

[head]
blank = 0
alphabet = "abc"
""",
    "detection": """title = "Boxes"
scheme = "w8a8-dynamic"
task = "object-detection"

[head]
kind = "yolov8"
format = "cxcywh"
overlap = 0.45
score = 0.25

[preprocessing]
resize = [32, 32]
rescale = 0.00392156862745098
""",
}
FACTORY = """import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(8, 4))

def example_inputs():
    return {"x": torch.zeros(2, 8)}
"""
METRIC = """def metric(outputs, references):
    return 1.0
"""
_WORDS = [
    "the",
    "dog",
    "cat",
    "sees",
    "wants",
    "paints",
    "a",
    "red",
    "house",
    "river",
    "some",
    "bread",
    "song",
    "about",
    "rain",
    "old",
    "captain",
    "neighbour",
    "my",
]


def write_seeds(folder: Path) -> Path:
    """Fill `folder`; what is there already stays."""
    if (folder / "done").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "target.toml": TARGET,
        "recipe.toml": RECIPE,
        "recipe-stream.toml": STREAM_RECIPE,
        "factory.py": FACTORY,
        "metric.py": METRIC,
        "texts.txt": "\n".join(f"{word} {other}" for word in _WORDS[:6] for other in _WORDS[:5]) + "\n",
        "texts.jsonl": "".join(
            json.dumps({"text": word, "label": index % 2}) + "\n" for index, word in enumerate(_WORDS)
        ),
        "words.jsonl": "".join(json.dumps({"tokens": [word, "a"], "labels": [0, -100]}) + "\n" for word in _WORDS),
        "texts.csv": "text,label\n" + "".join(f'"{word}, or not",{index % 2}\n' for index, word in enumerate(_WORDS)),
        "pairs.tsv": "".join(f"{index / 4}\t{word}\tthe {word}\n" for index, word in enumerate(_WORDS)),
        "references.csv": "a,b\n" + "1,2\n" * 30,
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    _write_data(folder)
    _write_onnx(folder / "onnx")
    _write_stream(folder / "stream")
    _write_heads(folder / "heads")
    _write_bert(folder / "bert")
    _write_vit(folder / "vit")
    _write_bundle(folder)
    (folder / "done").touch()
    return folder


def _write_data(folder: Path) -> None:
    dice = np.random.default_rng(0)
    np.savez(folder / "inputs.npz", x=dice.normal(size=(20, 8)).astype(np.float32), y=np.arange(20) % 2)
    np.savez(folder / "images.npz", dice.integers(0, 255, (20, 8, 8, 3), dtype=np.uint8))
    for place in ("images", "yolo/images", "coco"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(14):
            pixels = dice.integers(0, 255, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number:02}.{'jpg' if number % 2 else 'png'}")
    (folder / "yolo" / "labels").mkdir(exist_ok=True)
    for number in range(14):
        (folder / "yolo" / "labels" / f"{number:02}.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.1\n")
    names = sorted(path.name for path in (folder / "coco").iterdir() if path.suffix != ".json")
    images: list[dict[str, Any]] = [
        {"id": i, "file_name": name, "width": 10, "height": 12} for i, name in enumerate(names)
    ]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 3.5, 4], "iscrowd": 0} for i in range(14)]
    (folder / "coco" / "coco.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for number in range(14):
        (folder / "audio").mkdir(exist_ok=True)
        with wave.open(str(folder / "audio" / f"{number:02}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(dice.integers(-9, 9, 400, dtype=np.int16).tobytes())
    _write_segments(folder / "segments")
    _write_optional(folder)


def _write_optional(folder: Path) -> None:
    """What a library writes that need not be installed."""
    if find_spec("pyarrow"):
        import pyarrow
        from pyarrow import parquet

        rows = {"text": _WORDS, "label": [index % 2 for index in range(len(_WORDS))]}
        parquet.write_table(pyarrow.table(rows), folder / "texts.parquet")
    if find_spec("soundfile"):
        import soundfile

        sound = np.random.default_rng(2).normal(size=400).clip(-1, 1)
        soundfile.write(folder / "audio" / "02.flac", sound, 16000)
        (folder / "audio" / "02.wav").unlink(missing_ok=True)


def _write_segments(folder: Path) -> None:
    dice = np.random.default_rng(3)
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(14):
            shape = (12, 10, 3) if place == "images" else (12, 10)
            pixels = dice.integers(0, 255 if place == "images" else 3, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number:02}.png")


def _write_stream(folder: Path) -> None:
    """x [batch, 4], h [batch, 3] -> hn = tanh(x w + h), y = hn u."""
    folder.mkdir(exist_ok=True)
    dice = np.random.default_rng(4)
    weights = {"w": dice.normal(size=(4, 3)), "u": dice.normal(size=(3, 4))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "h"], ["s"]),
        helper.make_node("Tanh", ["s"], ["hn"]),
        helper.make_node("MatMul", ["hn", "u"], ["q"]),
        helper.make_node("Unsqueeze", ["q", "axis"], ["y"]),
    ]
    sizes = {"x": ["batch", 4], "h": ["batch", 3], "y": ["batch", 1, 4], "hn": ["batch", 3]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    graph = helper.make_graph(nodes, "stream", [values["x"], values["h"]], [values["y"], values["hn"]], constants)
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "m.onnx")
    np.savez(folder.parent / "steps.npz", x=dice.normal(size=(16, 5, 4)).astype(np.float32))


def _write_heads(folder: Path) -> None:
    """Recipes with [inputs] and [head], and images [batch, 3, 32, 32] -> YOLO's [batch, 6, 16]."""
    folder.mkdir(exist_ok=True)
    for name, text in HEADS.items():
        (folder / f"{name}.toml").write_text(text)
    weight = np.random.default_rng(5).normal(size=(6, 3, 8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("Reshape", ["c", "sizes"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 6, 16])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([0, 6, 16], np.int64), "sizes")],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "yolo.onnx")


def _write_onnx(folder: Path) -> None:
    """x [batch, 8] -> Relu(x w + b) -> an If whose branches hold constants; `w` in a file beside it."""
    folder.mkdir(exist_ok=True)
    dice = np.random.default_rng(1)
    w = dice.normal(size=(8, 4)).astype(np.float32)
    (folder / "w.bin").write_bytes(b"\0" * 64 + w.tobytes())
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=w.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "64"), ("length", str(w.nbytes))):
        outside.external_data.add(key=key, value=value)
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Constant", [], [f"{name}_c"], value=numpy_helper.from_array(np.float32(bias)))],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_c", TensorProto.FLOAT, [])],
        )
        for name, bias in (("then", 0.0), ("else", 1.0))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Own", ["h", "b"], ["s"], domain="own", name="call"),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("If", ["yes"], ["c"], **branches),
        helper.make_node("Add", ["r", "c"], ["y"]),
    ]
    own = helper.make_function(
        "own", "Own", ["p", "q"], ["t"], [helper.make_node("Add", ["p", "q"], ["t"])], [helper.make_opsetid("", 21)]
    )
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [outside, numpy_helper.from_array(np.ones(4, np.float32), "b"), numpy_helper.from_array(np.bool_(True), "yes")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[own])
    onnx.save(model, folder / "m.onnx")


def _write_bert(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *_WORDS[:-2]]
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 128, "max_position_embeddings": 64}
    BertModel(
        BertConfig(vocab_size=len(ids), num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2, **sizes)
    ).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106  # no password
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")]
    )
    names = {f"{piece.strip('[]').lower()}_token": piece for piece in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))


def _write_vit(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "intermediate_size": 64, "image_size": 8, "patch_size": 4}
    ViTForImageClassification(ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)).save_pretrained(folder)
    processing = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 8},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processing))


def _write_bundle(folder: Path) -> None:
    """An export of the encoder: its bundle, its report and its store."""
    flags = ["--calibration-data", "texts.txt", "--calibration-samples", "16", "--eval-data", "texts.txt"]
    command = [sys.executable, "-m", "pipeline", "export", "--model", "bert", "--target", "target.toml", *flags]
    done = subprocess.run(
        [*command, "--recipe", "w8a8-dynamic", "--output", "made", "--store", "made-store"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if not (folder / "made" / "report.json").is_file():
        raise RuntimeError(f"The export that gives the valid bundle failed:\n{done.stderr}")
