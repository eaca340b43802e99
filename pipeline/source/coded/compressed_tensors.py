"""Checkpoints of the library compressed-tensors (llm-compressor writes them), in its format `pack-quantized`.

Of each layer: `weight_packed` int32 [outputs, inputs * bits / 32], `weight_scale` [outputs, groups], `weight_shape`
[2], of asymmetric codes `weight_zero_point` int32 [outputs * bits / 32, groups], and of act-order `weight_g_idx`
[inputs]. Codes and zero points are signed and stored plus half their range (compressors/pack_quantized).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.numerics.blocks import Bits
from pipeline.numerics.coded import Coded, unpack_words
from pipeline.source.coded.module import CodedModule, group_of, require_bits
from pipeline.source.coded.tensors import FLOATS, Tensors, group_order

_SUFFIX = ".weight_packed"
_FORMAT = "pack-quantized"
_WIDTHS = (4, 8, 2, 1, 3, 5, 6, 7)
"""Bits that the library packs, the usual ones first: below 32 inputs several fill the same number of words."""


def compressed_modules(tensors: Tensors, settings: Mapping[str, Any]) -> Iterator[CodedModule]:
    """UsageError for another format, for rotations that the model must do when it runs, and for shapes that contradict
    each other."""
    groups = settings.get("config_groups")
    each = groups.values() if isinstance(groups, dict) else ()
    named = [group.get("format") for group in each if isinstance(group, dict)]
    formats = sorted({str(form) for form in (settings.get("format"), *named) if form} - {_FORMAT, "mixed-precision"})
    if formats:
        raise UsageError(
            f"{tensors.folder.name!r} is in the format {formats[0]!r} of compressed-tensors; {_FORMAT} is read.",
            "Quantize weights alone to integers (W4A16, W8A16), or give the float checkpoint that it was made from.",
        )
    if settings.get("transform_config"):
        raise UsageError(
            f"{tensors.folder.name!r} has a transform_config: its model rotates states while it runs, which the "
            "architecture in transformers does not.",
            "Give a checkpoint without transforms, or the float one that it was made from.",
        )
    for name in tensors.stored:
        if name.endswith(_SUFFIX):
            yield _module(tensors, name.removesuffix(_SUFFIX))


def _module(tensors: Tensors, module: str) -> CodedModule:
    weight, scale, zero = f"{module}{_SUFFIX}", f"{module}.weight_scale", f"{module}.weight_zero_point"
    tensors.require(f"{module}.weight_shape", ("I64", "I32"), (2,))
    outputs, inputs = map(int, tensors.read(f"{module}.weight_shape"))
    words = (*tensors.shape(weight), 0, 0)[1]
    bits = require_bits(weight, next((bits for bits in _WIDTHS if -(-inputs * bits // 32) == words), None))
    groups = (*tensors.shape(scale), 0, 0)[1]
    tensors.require(weight, ("I32",), (outputs, words))
    tensors.require(scale, FLOATS, (outputs, groups))
    if zero in tensors.stored:
        tensors.require(zero, ("I32",), (-(-outputs * bits // 32), groups))
    size = group_of(weight, inputs, groups)
    parts = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    named = tuple(name for part in parts if (name := f"{module}.{part}") in tensors.stored)
    return CodedModule(f"{module}.weight", bits, size, named, partial(_read, tensors, module, bits, size, inputs))


def _read(tensors: Tensors, module: str, bits: Bits, group: int, inputs: int) -> Coded:
    codes = unpack_words(tensors.words(f"{module}.weight_packed"), bits)[:, :inputs]
    scales = tensors.read(f"{module}.weight_scale").astype(np.float32)
    zeros = np.full(scales.shape, 1 << (bits - 1), np.uint8)
    if f"{module}.weight_zero_point" in tensors.stored:
        packed = np.ascontiguousarray(tensors.words(f"{module}.weight_zero_point").T)
        zeros = unpack_words(packed, bits)[:, : len(codes)].T
    order = group_order(tensors, f"{module}.weight_g_idx", inputs, scales.shape[1], group)
    codes = codes if order is None else codes[:, order]
    codes, zeros = np.ascontiguousarray(codes), np.ascontiguousarray(zeros)
    return Coded(codes, np.ascontiguousarray(scales), zeros, bits, group, order=order)
