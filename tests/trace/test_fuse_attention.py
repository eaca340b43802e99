from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import transformers
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass

from pipeline.graph.files import save_model
from pipeline.trace.canonical import canonicalize
from pipeline.trace.examples import example_inputs
from pipeline.trace.fuse_attention import fuse_attentions
from pipeline.trace.parity import check_parity
from pipeline.trace.to_onnx import trace

HEADS, SIZE = 3, 4
HIDDEN = HEADS * SIZE
LENGTHS = {"q": 5, "k": 7}
HEADS_FIRST, TURNED = [0, 2, 1, 3], [0, 2, 3, 1]
Arrays = dict[str, NDArray[np.float32]]


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{output}/{op_type}", **attributes)


def attention(*, scaling: str = "Mul", mask: bool = True) -> dict[str, NodeProto]:
    """Written out as transformers do; by their outputs' names."""
    scores = [node(scaling, "qk factor", "scaled")] if scaling else []
    scores += [node("Add", f"{'scaled' if scaling else 'qk'} mask", "masked")] if mask else []
    last = scores[-1].output[0] if scores else "qk"
    nodes = [
        node("Reshape", "query heads", "qs"),
        node("Transpose", "qs", "qt", perm=HEADS_FIRST),
        node("Reshape", "key heads", "ks"),
        node("Transpose", "ks", "kt", perm=TURNED),
        node("Reshape", "value heads", "vs"),
        node("Transpose", "vs", "vt", perm=HEADS_FIRST),
        node("MatMul", "qt kt", "qk"),
        *scores,
        node("Softmax", last, "p", axis=-1),
        node("MatMul", "p vt", "mixed"),
        node("Transpose", "mixed", "turned", perm=HEADS_FIRST),
        node("Reshape", "turned whole", "side"),
        node("Neg", "side", "y"),
    ]
    return {entry.output[0]: entry for entry in nodes}


def build(
    path: Path, nodes: dict[str, NodeProto], mask: list[int | str] | None = None, outputs: tuple[str, ...] = ("y",)
) -> Path:
    """`query` [2, q, 12], `key` and `value` [2, k, 12], `mask`, which is of all pairs by default; the shapes of what
    is computed are recorded, as tracers do."""
    shapes: dict[str, list[int | str]] = {
        **{"query": [2, "q", HIDDEN], "key": [2, "k", HIDDEN], "value": [2, "k", HIDDEN]},
        **{"qs": [2, "q", HEADS, SIZE], "ks": [2, "k", HEADS, SIZE], "vs": [2, "k", HEADS, SIZE]},
        **{"mask": mask or [2, 1, "q", "k"], "side": [2, "q", HIDDEN], "y": [2, "q", HIDDEN]},
    }
    used = {name for entry in nodes.values() for name in entry.input}
    inputs = [name for name in ("query", "key", "value", "mask") if name in used]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    constants = {"heads": [2, -1, HEADS, SIZE], "whole": [2, -1, HIDDEN], "zero": [0, 0, HIDDEN], "flat": [-1, HIDDEN]}
    stored = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    stored += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in FACTORS.items()]
    graph = helper.make_graph(
        list(nodes.values()),
        "g",
        [infos[name] for name in inputs],
        [infos["y"] if name == "y" else helper.make_empty_tensor_value_info(name) for name in outputs],
        stored,
        value_info=[infos[name] for name in ("qs", "ks", "vs", "side")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    return path


FACTORS = {"factor": 0.5, "negative": -0.5, "several": np.full((SIZE + 3,), 0.5)}


def feed(path: Path) -> Arrays:
    draw = np.random.default_rng(0).normal
    inputs = onnx.load(path).graph.input
    dims = {
        entry.name: [d.dim_value or LENGTHS[d.dim_param] for d in entry.type.tensor_type.shape.dim] for entry in inputs
    }
    arrays = {name: draw(size=shape).astype(np.float32) for name, shape in dims.items()}
    if "mask" in arrays:
        arrays["mask"] = np.where(arrays["mask"] < 0, np.finfo(np.float32).min, 0).astype(np.float32)
    return arrays


def outputs(path: Path, arrays: Arrays) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, arrays)


def fused(path: Path) -> ir.Model:
    """The graph with its attention fused, which must compute the same."""
    model = ir.load(path)
    assert fuse_attentions(model.graph) == 1
    RemoveUnusedNodesPass()(model)
    save_model(model, path.with_name("fused.onnx"))
    onnx.checker.check_model(path.with_name("fused.onnx"), full_check=True)
    arrays = feed(path)
    for expected, actual in zip(outputs(path, arrays), outputs(path.with_name("fused.onnx"), arrays), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    return model


@pytest.mark.parametrize(
    ("scaling", "mask", "scale"), [("Mul", True, 0.5), ("Div", True, 2.0), ("", True, 1.0), ("Mul", False, 0.5)]
)
def test_fused_attention_computes_the_same(tmp_path: Path, scaling: str, mask: bool, scale: float) -> None:
    made, last = fused(build(tmp_path / "m.onnx", attention(scaling=scaling, mask=mask))).graph
    assert (made.op_type, made.domain) == ("Attention", "")
    names = ["query", "key", "value", "mask"] if mask else ["query", "key", "value"]
    assert [value.name for value in made.inputs if value is not None] == names
    assert {name: attribute.value for name, attribute in made.attributes.items()} == {
        "q_num_heads": HEADS,
        "kv_num_heads": HEADS,
        "scale": scale,
    }
    assert last.op_type == "Neg" and last.inputs[0] is made.outputs[0]


@pytest.mark.parametrize("mask", [[1, 1, "q", "k"], [1, HEADS, "q", "k"], [2, HEADS, "q", "k"]])
def test_mask_may_be_shared_by_rows_and_heads(tmp_path: Path, mask: list[int | str]) -> None:
    assert [made.op_type for made in fused(build(tmp_path / "m.onnx", attention(), mask)).graph] == ["Attention", "Neg"]


def test_mask_may_stand_before_the_scores(tmp_path: Path) -> None:
    changed = attention() | {"masked": node("Add", "mask scaled", "masked")}
    assert [made.op_type for made in fused(build(tmp_path / "m.onnx", changed)).graph] == ["Attention", "Neg"]


def test_reshape_to_something_else_stays(tmp_path: Path) -> None:
    """GPT-2's output projection reads all positions as rows."""
    changed = attention() | {"side": node("Reshape", "turned flat", "f"), "y": node("Reshape", "f whole", "y")}
    kinds = [made.op_type for made in fused(build(tmp_path / "m.onnx", changed)).graph]
    assert kinds == ["Attention", "Reshape", "Reshape"]


@pytest.mark.parametrize("mask", [[2, 1, 1, "k"], [1, 1, "q", 1], ["q", "k"], [2, 1, "k", "k"]])
def test_mask_that_must_be_broadcast_is_left_alone(tmp_path: Path, mask: list[int | str]) -> None:
    """ONNX Runtime reads it as if it had a value for each pair."""
    assert untouched(build(tmp_path / "m.onnx", attention(), mask))


@pytest.mark.parametrize(
    "change",
    [
        {"scaled": node("Mul", "qk negative", "scaled")},
        {"scaled": node("Mul", "qk several", "scaled")},
        {"p": node("Softmax", "masked", "p", axis=2)},
        {"p": node("LogSoftmax", "masked", "p", axis=-1)},
        {"mixed": node("MatMul", "p p", "mixed")},
        {"mixed": node("Add", "p vt", "mixed")},
        {"turned": node("Transpose", "mixed", "turned", perm=[0, 1, 2, 3])},
        {"turned": node("Identity", "mixed", "turned")},
        {"qt": node("Identity", "qs", "qt")},
        {"kt": node("Transpose", "ks", "kt", perm=HEADS_FIRST)},
        {"vs": node("Identity", "value", "vs")},
        {"side": node("Reshape", "turned zero", "side")},
        {"side": node("Identity", "turned", "side")},
    ],
    ids=lambda change: "-".join(f"{name}={entry.op_type}" for name, entry in change.items()),
)
def test_other_computations_are_left_alone(tmp_path: Path, change: dict[str, NodeProto]) -> None:
    assert untouched(build(tmp_path / "m.onnx", attention() | change))


@pytest.mark.parametrize("inner", ["qk", "scaled", "masked", "p", "mixed", "turned"])
def test_what_others_read_is_left_alone(tmp_path: Path, inner: str) -> None:
    assert untouched(build(tmp_path / "m.onnx", attention(), outputs=("y", inner)))
    changed = attention() | {"z": node("Neg", inner, "z")}
    assert untouched(build(tmp_path / "m.onnx", changed, outputs=("y", "z")))


def test_nothing_is_fused_without_recorded_shapes(tmp_path: Path) -> None:
    model = ir.load(build(tmp_path / "m.onnx", attention()))
    for entry in model.graph:
        for value in entry.outputs:
            value.shape = None
    assert fuse_attentions(model.graph) == 0


def untouched(path: Path) -> bool:
    model = ir.load(path)
    before = [str(entry) for entry in model.graph]
    return fuse_attentions(model.graph) == 0 and [str(entry) for entry in model.graph] == before


SLOW = ("distilbert", "gpt2", "wav2vec2")
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 48}
WAVE = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
CONFIGS = {
    "text": [
        transformers.BertConfig(vocab_size=50, **SMALL),
        transformers.DistilBertConfig(vocab_size=50, dim=32, n_layers=1, n_heads=4, hidden_dim=48),
        transformers.GPT2Config(
            vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False, bos_token_id=1, eos_token_id=1
        ),
    ],
    "image": [transformers.ViTConfig(image_size=32, patch_size=8, **SMALL)],
    "audio": [transformers.Wav2Vec2Config(**SMALL, **WAVE)],
}


@pytest.mark.parametrize(
    ("data", "config"),
    [
        pytest.param(data, config, marks=pytest.mark.slow if config.model_type in SLOW else ())
        for data, configs in CONFIGS.items()
        for config in configs
    ],
    ids=lambda value: value if isinstance(value, str) else value.model_type,
)
def test_attention_of_real_architectures_is_fused(tmp_path: Path, data: str, config: Any) -> None:
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = transformers.AutoModel.from_config(config).eval()
    names = {"text": ["input_ids", "attention_mask"], "image": ["pixel_values"], "audio": ["input_values"]}[data]
    examples = example_inputs(model, data, names, batch=2, length=16 if data == "text" else 4000, seed=0)
    graph = trace(model, examples, 23)
    canonicalize(graph, prefix="")
    kinds = [entry.op_type for entry in graph.graph]
    assert (kinds.count("Attention"), kinds.count("Softmax")) == (1, 0)
    assert all("attention" in str(e.name).lower() for e in graph.graph if e.op_type == "Attention")
    save_model(graph, tmp_path / "m.onnx")
    assert check_parity(model, tmp_path / "m.onnx", [examples]) < 1e-4


def test_older_opsets_keep_attention_written_out(tmp_path: Path) -> None:
    config = CONFIGS["image"][0]
    config._attn_implementation = "eager"
    model = transformers.AutoModel.from_config(config).eval()
    examples = example_inputs(model, "image", ["pixel_values"], batch=2, length=16, seed=0)
    graph = trace(model, examples, 21)
    canonicalize(graph, prefix="")
    kinds = [entry.op_type for entry in graph.graph]
    assert (kinds.count("Attention"), kinds.count("Softmax")) == (0, 1)
