"""Checkpoints of codes: what is read of each kind, and how what is not is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coded_checkpoints import (
    AWQ,
    COMPRESSED,
    GPTQ,
    Packed,
    awq,
    compressed,
    gguf_file,
    gptq,
    q4_0,
)
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from pipeline.core.errors import UsageError
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.coded.contents import CodedCheckpoint
from pipeline.source.model import resolve_model

LLAMA = {"general.architecture": "llama", "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1}


def checkpoint(folder: Path, settings: dict[str, Any], packed: Packed) -> CodedCheckpoint | None:
    save_file(
        {"norm.weight": np.ones(3, np.float16)} | {f"layer.{part}": array for part, array in packed[0].items()},
        folder / "model.safetensors",
    )
    return coded_checkpoint(folder, {"quantization_config": settings})


def refusal(folder: Path, settings: dict[str, Any], packed: Packed) -> str:
    with pytest.raises(UsageError) as caught:
        checkpoint(folder, settings, packed)
    return caught.value.message


@pytest.mark.parametrize(
    ("settings", "packed"),
    [
        (GPTQ, lambda: gptq(16, 96)),
        (GPTQ, lambda: gptq(16, 96, group_of=np.random.default_rng(0).permutation(np.arange(96) // 32))),
        (GPTQ | {"checkpoint_format": "gptq_v2"}, lambda: gptq(16, 96, added=0)),
        (GPTQ | {"bits": 8}, lambda: gptq(16, 96, bits=8)),
        (GPTQ | {"bits": 2}, lambda: gptq(16, 96, bits=2)),
        (AWQ, lambda: awq(16, 96)),
        (COMPRESSED, lambda: compressed(16, 96)),
        (COMPRESSED, lambda: compressed(12, 96, symmetric=True)),
        (COMPRESSED, lambda: compressed(16, 96, bits=8)),
    ],
)
def test_codes_stand_for_the_weight_bit_for_bit(
    settings: dict[str, Any], packed: Callable[[], Packed], tmp_path: Path
) -> None:
    tensors, weight = packed()
    found = checkpoint(tmp_path, settings, (tensors, weight))
    assert found is not None
    np.testing.assert_array_equal(found.codes["layer.weight"]().values(), weight)
    assert list(found.floats) == ["norm.weight"]
    assert found.floats["norm.weight"]().dtype == np.float32


@pytest.mark.parametrize(
    ("file", "settings", "packed"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False}, gptq(16, 96)),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 32, "version": "GEMM"}, awq(16, 96)),
    ],
)
def test_settings_in_a_file_of_their_own(file: str, settings: dict[str, Any], packed: Packed, tmp_path: Path) -> None:
    """As older AutoGPTQ and AutoAWQ write them; config.json says nothing then."""
    (tmp_path / file).write_text(json.dumps(settings))
    save_file({f"layer.{part}": array for part, array in packed[0].items()}, tmp_path / "model.safetensors")
    found = coded_checkpoint(tmp_path, {})
    assert found is not None
    np.testing.assert_array_equal(found.codes["layer.weight"]().values(), packed[1])


def test_a_zero_point_of_0_is_stored_as_the_largest_code(tmp_path: Path) -> None:
    tensors, _ = gptq(8, 32)
    tensors["qzeros"] = np.full((1, 1), -1, np.int32)
    found = checkpoint(tmp_path, GPTQ, (tensors, np.zeros(0)))
    assert found is not None
    assert found.codes["layer.weight"]().zeros.tolist() == [[0]] * 8


def test_bfloat16_scales_are_read_exactly(tmp_path: Path) -> None:
    """Numpy knows no bfloat16."""
    values = np.array([[0.5], [1.5], [-2.0], [3.0]], np.float32)
    tensors = {name: torch.from_numpy(array) for name, array in compressed(4, 32, symmetric=True)[0].items()}
    tensors["weight_scale"] = torch.from_numpy(values).bfloat16()
    save_torch({f"layer.{part}": tensor for part, tensor in tensors.items()}, tmp_path / "model.safetensors")
    found = coded_checkpoint(tmp_path, {"quantization_config": COMPRESSED})
    assert found is not None
    np.testing.assert_array_equal(found.codes["layer.weight"]().scales, values)


@pytest.mark.parametrize(
    ("settings", "packed", "said"),
    [
        (
            {"quant_method": "bitsandbytes"},
            lambda: gptq(8, 32),
            "The weights of 'm' are quantized already (bitsandbytes), in a form that is not read; gptq, awq, "
            "compressed-tensors and GGUF are.",
        ),
        (
            GPTQ | {"checkpoint_format": "marlin"},
            lambda: gptq(8, 32),
            "'m' has its codes in the form 'marlin' of GPTQ; gptq and gptq_v2 are read.",
        ),
        (
            GPTQ | {"bits": 3},
            lambda: ({**gptq(32, 32)[0], "qweight": np.zeros((3, 32), np.int32)}, None),
            "'layer.qweight' is stored in 3 bits; ONNX Runtime's products take codes of 2, 4 or 8.",
        ),
        (
            GPTQ,
            lambda: ({part: array for part, array in gptq(8, 32)[0].items() if part != "qzeros"}, None),
            "The checkpoint 'm' has no tensor 'layer.qzeros', which its codes need.",
        ),
        (
            GPTQ,
            lambda: ({**gptq(8, 32)[0], "scales": np.ones((1, 9), np.float16)}, None),
            "The checkpoint 'm' has 'layer.scales' as F16 [1, 9]; its other tensors ask for F16 or BF16 or F32 [1, 8].",
        ),
        (
            GPTQ,
            lambda: gptq(8, 96, group_of=np.repeat([0, 1, 2], [40, 24, 32])),
            "'layer.g_idx' of 'm' cannot be followed: its groups do not have 32 columns each.",
        ),
        (GPTQ, lambda: ({}, None), "'m' says that it is quantized (GPTQ), and has no tensors of codes."),
        (
            AWQ | {"version": "gemv"},
            lambda: awq(8, 32),
            "'m' has codes of 4 bits in the form 'gemv' of AWQ; 4 bits in the form 'gemm' are read.",
        ),
        (
            COMPRESSED | {"format": "float-quantized"},
            lambda: compressed(8, 32),
            "'m' is in the format 'float-quantized' of compressed-tensors; pack-quantized is read.",
        ),
        (
            COMPRESSED | {"transform_config": {"R1": {}}},
            lambda: compressed(8, 32),
            "'m' has a transform_config: its model rotates states while it runs, which the architecture in "
            "transformers does not.",
        ),
        (
            COMPRESSED,
            lambda: ({**compressed(8, 32)[0], "weight_shape": np.array([8, 1 << 60])}, None),
            "'layer.weight_packed' is stored in no whole number of bits; ONNX Runtime's products take codes of 2, 4 "
            "or 8.",
        ),
        (
            COMPRESSED,
            lambda: ({**compressed(8, 40, symmetric=True)[0], "weight_scale": np.ones((8, 4), np.float32)}, None),
            "'layer.weight_packed' has a scale for every 10 columns; ONNX Runtime's blocks have 16, 32, 64, ...",
        ),
    ],
)
def test_what_is_refused(settings: dict[str, Any], packed: Callable[[], Packed], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    found = refusal(folder, settings, packed()) if "g_idx" not in said else order_refusal(folder, packed())
    assert found == said


def order_refusal(folder: Path, packed: Packed) -> str:
    """Which columns belong together is seen when the codes are read."""
    found = checkpoint(folder, GPTQ, packed)
    assert found is not None
    with pytest.raises(UsageError) as caught:
        found.codes["layer.weight"]()
    return caught.value.message


def gguf(path: Path, **changes: Any) -> Path:
    """Of one layer's projections, a norm and a table."""
    tensors = {
        "blk.0.attn_q.weight": (2, (8, 32), q4_0(8, 32, 1)[0]),
        "blk.0.attn_v.weight": (2, (4, 32), q4_0(4, 32, 2)[0]),
        "output_norm.weight": (0, (32,), np.arange(32, dtype="<f4").tobytes()),
        "token_embd.weight": (1, (3, 32), np.ones((3, 32), "<f2").tobytes()),
        "rope_freqs.weight": (0, (2,), bytes(8)),
    }
    return gguf_file(path, LLAMA, tensors | changes)


def test_gguf_rows_of_queries_are_in_the_order_of_transformers(tmp_path: Path) -> None:
    """llama.cpp has the two halves of a head's rotary pairs side by side."""
    found = coded_checkpoint(tmp_path, {}, str(gguf(tmp_path / "m.gguf")))
    assert found is not None
    queries = q4_0(8, 32, 1)[1]
    rows = found.codes["model.layers.0.self_attn.q_proj.weight"]().values()
    np.testing.assert_array_equal(rows, queries[[0, 2, 1, 3, 4, 6, 5, 7]])
    values = found.codes["model.layers.0.self_attn.v_proj.weight"]().values()
    np.testing.assert_array_equal(values, q4_0(4, 32, 2)[1])
    assert found.floats["model.norm.weight"]().tolist() == list(range(32))
    assert found.floats["model.embed_tokens.weight"]().tolist() == np.ones((3, 32)).tolist()
    assert found.note().startswith("The checkpoint is quantized already (GGUF; 2 x Q4_0): these codes,")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGML" + bytes(40), "it does not begin with GGUF and a version of 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "its header ends before byte 32"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 40), "a text has 1,099,511,627,776 bytes"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "a value has the type 77"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 10, 1 << 60),
            f"its header ends before byte {49 + (1 << 63):,}",
        ),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "a list has the type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9), "'t' has 9 axes"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIQQIQ", 3, 1, 0, 1, b"t", 2, 32, 1 << 50, 2, 0),
            f"'t' has the shape [{1 << 50}, 32] and ends beyond the file's 65 bytes",
        ),
    ],
)
def test_odd_gguf_files(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        coded_checkpoint(tmp_path, {}, str(path))
    assert caught.value.message == f"'m.gguf' is no valid GGUF file: {said}."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"blk.0.attn_k.weight": (12, (4, 256), bytes(4 * 144))},
            "'m.gguf' has 'blk.0.attn_k.weight' as Q4_K [4, 256]; of codes, matrices of Q4_0, Q4_1, Q8_0, Q6_K are "
            "read.",
        ),
        (
            {"blk.0.ffn_gate_exps.weight": (0, (2,), bytes(8))},
            "'m.gguf' has a tensor 'blk.0.ffn_gate_exps', which no layer of its architecture is known to have.",
        ),
        (
            {"blk.0.attn_q.weight": (2, (6, 32), bytes(6 * 18))},
            "'m.gguf' has 'blk.0.attn_q.weight' with 6 rows, which 2 heads do not share.",
        ),
    ],
)
def test_gguf_tensors_that_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        coded_checkpoint(tmp_path, {}, str(gguf(tmp_path / "m.gguf", **changes)))
    assert caught.value.message == said


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "m.gguf", {"general.architecture": "gemma3"}, {})
    with pytest.raises(UsageError) as caught:
        coded_checkpoint(tmp_path, {}, str(path))
    assert caught.value.message == (
        "'m.gguf' is a GGUF file of the architecture 'gemma3'; llama, qwen2, qwen3 are read."
    )


def test_a_gguf_file_needs_a_config_beside_it(tmp_path: Path) -> None:
    gguf(tmp_path / "m.gguf")
    for given, said in (
        ("m.gguf", "There is no config.json beside 'm.gguf': a GGUF file says too little of its architecture."),
        ("n.gguf", f"There is no file '{tmp_path}/n.gguf'."),
    ):
        with pytest.raises(UsageError) as caught:
            resolve_model(str(tmp_path / given))
        assert caught.value.message == said


def test_one_of_several_gguf_files_must_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    gguf(folder / "a.gguf")
    gguf(folder / "b.gguf")
    with pytest.raises(UsageError) as caught:
        resolve_model(str(folder))
    assert caught.value.message == "The folder 'm' has 2 GGUF files: a.gguf, b.gguf."


def test_modules_of_one_form_are_alike(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation
    packed = {"m.q": gptq(8, 64), "m.k": gptq(8, 64, 1), "m.v": gptq(8, 64, 2, group_of=order(64) // 32)}
    tensors = {f"{name}.{part}": array for name, (parts, _) in packed.items() for part, array in parts.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = coded_checkpoint(tmp_path, {"quantization_config": GPTQ})
    assert found is not None
    assert found.alike(["q", "m.k"])
    assert not found.alike(["q", "v"])
    assert not found.alike(["q", "o"])
    assert found.alike(["o", "p"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "stands for."),
        ({"kv_cache_scheme": {"num_bits": 8}}, "It asks for rounded keys and values too: those follow the recipe."),
        (
            {"config_groups": {"all": {"input_activations": {"num_bits": 8}}}, "kv_cache_scheme": {"num_bits": 8}},
            "It asks for rounded activations and keys and values too: those follow the recipe.",
        ),
    ],
)
def test_what_else_the_checkpoint_rounds_is_told(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = checkpoint(tmp_path, COMPRESSED | more, compressed(16, 96))
    assert found is not None
    assert found.note().endswith(said)
