"""Checkpoints of codes, packed value by value as the formats' descriptions say, and what they stand for."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[Any]
Packed = tuple[dict[str, Array], Array]
"""Tensors by their ending, and the weight float32 [outputs, inputs] that they stand for."""
GROUP = 32
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "checkpoint_format": "gptq"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}


def words_of(codes: Array, bits: int) -> Array:
    """Codes [rows, columns] in int32 words along columns, the first in the lowest bits."""
    each = 32 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))).astype(np.uint64)
    words = sum(padded[:, place::each] << np.uint64(bits * place) for place in range(each))
    return np.ascontiguousarray(words.astype(np.uint32).view(np.int32))  # type: ignore[union-attr]


def drawn(outputs: int, inputs: int, bits: int, seed: int) -> tuple[Array, Array, Array]:
    """Codes [outputs, inputs], scales float16 and zero points [outputs, groups] of a weight with a mean near 0."""
    draw, middle = np.random.default_rng(seed), 1 << (bits - 1)
    groups = -(-inputs // GROUP)
    codes = np.clip(np.rint(draw.normal(middle, middle / 3, (outputs, inputs))), 0, 2 * middle - 1).astype(np.uint8)
    scales = (draw.uniform(0.2, 0.4, (outputs, groups)) / middle).astype(np.float16)
    return codes, scales, draw.integers(middle - 2, middle + 2, (outputs, groups), dtype=np.uint8)


def stands_for(codes: Array, scales: Array, zeros: Array, group_of: Array) -> Array:
    found: Array = (codes.astype(np.float32) - zeros[:, group_of]) * scales.astype(np.float32)[:, group_of]
    return found


def gptq(
    outputs: int, inputs: int, seed: int = 0, bits: int = 4, added: int = 1, group_of: Array | None = None
) -> Packed:
    codes, scales, zeros = drawn(outputs, inputs, bits, seed)
    group_of = np.arange(inputs) // GROUP if group_of is None else group_of
    tensors = {
        "qweight": np.ascontiguousarray(words_of(codes, bits).T),
        "qzeros": words_of((zeros.T - added) & ((1 << bits) - 1), bits),
        "scales": np.ascontiguousarray(scales.T),
        "g_idx": group_of.astype(np.int32),
    }
    return tensors, stands_for(codes, scales, zeros, group_of)


def awq(outputs: int, inputs: int, seed: int = 0) -> Packed:
    codes, scales, zeros = drawn(outputs, inputs, 4, seed)
    order = [output + place for output in range(0, outputs, 8) for place in (0, 2, 4, 6, 1, 3, 5, 7)]
    tensors = {
        "qweight": words_of(codes.T[:, order], 4),
        "qzeros": words_of(zeros.T[:, order], 4),
        "scales": np.ascontiguousarray(scales.T),
    }
    return tensors, stands_for(codes, scales, zeros, np.arange(inputs) // GROUP)


def compressed(outputs: int, inputs: int, seed: int = 0, bits: int = 4, symmetric: bool = False) -> Packed:
    codes, scales, zeros = drawn(outputs, inputs, bits, seed)
    zeros = np.full_like(zeros, 1 << (bits - 1)) if symmetric else zeros
    tensors = {
        "weight_packed": words_of(codes, bits),
        "weight_scale": scales.astype(np.float32),
        "weight_shape": np.array([outputs, inputs]),
    }
    if not symmetric:
        tensors["weight_zero_point"] = np.ascontiguousarray(words_of(zeros.T, bits).T)
    return tensors, stands_for(codes, scales, zeros, np.arange(inputs) // GROUP)


def pack_folder(folder: Path, settings: Mapping[str, Any], pack: Callable[[int, int, int], Packed]) -> dict[str, Array]:
    """Put codes of `pack(outputs, inputs, seed)` in the place of the folder's products; the weights that they stand
    for, by name."""
    file = folder / "model.safetensors"
    tensors, found = {}, {}
    for seed, (name, weight) in enumerate(sorted(load_file(file).items())):
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        parts, found[name] = pack(*weight.shape, seed)
        tensors |= {f"{name.removesuffix('.weight')}.{part}": array for part, array in parts.items()}
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": dict(settings)}))
    return found


def gguf_file(path: Path, values: Mapping[str, Any], tensors: Mapping[str, tuple[int, tuple[int, ...], bytes]]) -> Path:
    """`values`: texts and numbers by key; `tensors`: ggml's type, shape with the outer axis first, bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        head += _text(key) + (
            struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        )
    data = b""
    for name, (kind, shape, content) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
        data += content + bytes(-len(content) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def q4_0(outputs: int, inputs: int, seed: int = 0) -> tuple[bytes, Array]:
    """Bytes of Q4_0, and what they stand for."""
    codes, scales, _ = drawn(outputs, inputs, 4, seed)
    content = b""
    for row, block in np.ndindex(outputs, inputs // 32):
        some = codes[row, 32 * block : 32 * block + 32]
        content += scales[row, block].tobytes() + (some[:16] | some[16:] << 4).astype(np.uint8).tobytes()
    return content, stands_for(codes, scales, np.full(scales.shape, 8), np.arange(inputs) // 32)
