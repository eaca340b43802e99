"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them.

Of each layer: `qweight` int32 [inputs * bits / 32, outputs], `qzeros` int32 [groups, outputs * bits / 32], `scales`
[groups, outputs] and `g_idx` int32 [inputs], the group of every input (AutoGPTQ, nn_modules/qlinear). Codes are packed
along inputs, zero points along outputs; in the form `gptq` zero points are stored less one, in `gptq_v2` as they are.
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

_SUFFIX = ".qweight"
_FORMS = {"gptq": 1, "gptq_v2": 0}
"""Of the zero points, what is added to what is stored."""


def gptq_modules(tensors: Tensors, settings: Mapping[str, Any]) -> Iterator[CodedModule]:
    """UsageError for a form that only some GPUs read, and for shapes that contradict each other."""
    form = settings.get("checkpoint_format") or ("marlin" if settings.get("is_marlin_format") else "gptq")
    if not isinstance(form, str) or form not in _FORMS:
        raise UsageError(
            f"{tensors.folder.name!r} has its codes in the form {form!r} of GPTQ; {' and '.join(_FORMS)} are read.",
            "Save it again as gptq (GPTQModel: `format=FORMAT.GPTQ`); others are laid out for one kind of GPU.",
        )
    for name in tensors.stored:
        if name.endswith(_SUFFIX):
            yield _module(tensors, name.removesuffix(_SUFFIX), settings, _FORMS[form])


def _module(tensors: Tensors, module: str, settings: Mapping[str, Any], added: int) -> CodedModule:
    weight, index = f"{module}{_SUFFIX}", f"{module}.g_idx"
    words, outputs = _two(tensors, weight)
    said = settings.get("bits")
    bits, inputs = said, words * 32 // said if type(said) is int and said > 0 else 0
    if index in tensors.stored:
        (inputs,) = tensors.shape(index) if len(tensors.shape(index)) == 1 else (0,)
        bits = words * 32 // inputs if inputs and words * 32 % inputs == 0 else None
    known = require_bits(weight, bits if type(bits) is int else None)
    groups = _two(tensors, f"{module}.scales")[0]
    tensors.require(weight, ("I32",), (inputs * known // 32, outputs))
    tensors.require(f"{module}.scales", FLOATS, (groups, outputs))
    tensors.require(f"{module}.qzeros", ("I32",), (groups, -(-outputs * known // 32)))
    said = settings.get("group_size")
    size = group_of(weight, inputs, groups, said if type(said) is int else None)
    read = partial(_read, tensors, module, known, size, added)
    named = tuple(f"{module}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
    return CodedModule(f"{module}.weight", known, size, tuple(name for name in named if name in tensors.stored), read)


def _two(tensors: Tensors, name: str) -> tuple[int, int]:
    """The sizes of a matrix, (0, 0) of anything else."""
    shape = tensors.shape(name)
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _read(tensors: Tensors, module: str, bits: Bits, group: int, added: int) -> Coded:
    codes = unpack_words(np.ascontiguousarray(tensors.words(f"{module}.qweight").T), bits)
    stored = unpack_words(tensors.words(f"{module}.qzeros"), bits)[:, : len(codes)].T
    zeros = (stored + np.uint8(added)) & np.uint8((1 << bits) - 1)  # 0 less one is stored as the largest code
    scales = tensors.read(f"{module}.scales").astype(np.float32).T
    order = group_order(tensors, f"{module}.g_idx", codes.shape[1], scales.shape[1], group)
    codes = codes if order is None else codes[:, order]
    codes, zeros = np.ascontiguousarray(codes), np.ascontiguousarray(zeros)
    return Coded(codes, np.ascontiguousarray(scales), zeros, bits, group, order=order)
