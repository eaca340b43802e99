"""AWQ checkpoints, as AutoAWQ's `gemm` form has them.

Of each layer: `qweight` int32 [inputs, outputs / 8], `qzeros` int32 [groups, outputs / 8] and `scales` [groups,
outputs]; the eight 4-bit codes of a word are those of eight outputs, in an order of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.numerics.coded import Coded, unpack_awq
from pipeline.source.coded.module import CodedModule, group_of
from pipeline.source.coded.tensors import FLOATS, Tensors

_SUFFIX = ".qweight"
_FORM = "gemm"


def awq_modules(tensors: Tensors, settings: Mapping[str, Any]) -> Iterator[CodedModule]:
    """UsageError for another form than `gemm`, other bits than 4, and for shapes that contradict each other."""
    form = str(settings.get("version") or settings.get("format") or _FORM).lower()
    bits = settings.get("bits", settings.get("w_bit", 4))
    if form != _FORM or bits != 4:
        raise UsageError(
            f"{tensors.folder.name!r} has codes of {bits} bits in the form {form!r} of AWQ; 4 bits in the form "
            f"{_FORM!r} are read.",
            "Quantize it again with version='gemm' and w_bit=4, or give the float checkpoint that it was made from.",
        )
    for name in tensors.stored:
        if name.endswith(_SUFFIX):
            yield _module(tensors, name.removesuffix(_SUFFIX))


def _module(tensors: Tensors, module: str) -> CodedModule:
    weight, scales = f"{module}{_SUFFIX}", f"{module}.scales"
    inputs, words = (*tensors.shape(weight), 0, 0)[:2]
    groups = (*tensors.shape(scales), 0)[0]
    tensors.require(weight, ("I32",), (inputs, words))
    tensors.require(scales, FLOATS, (groups, words * 8))
    tensors.require(f"{module}.qzeros", ("I32",), (groups, words))
    size = group_of(weight, inputs, groups)
    named = (weight, f"{module}.qzeros", scales)
    return CodedModule(f"{module}.weight", 4, size, named, partial(_read, tensors, module, size))


def _read(tensors: Tensors, module: str, group: int) -> Coded:
    codes, zeros = (unpack_awq(tensors.words(f"{module}.{part}")).T for part in ("qweight", "qzeros"))
    scales = tensors.read(f"{module}.scales").astype(np.float32).T
    return Coded(np.ascontiguousarray(codes), np.ascontiguousarray(scales), np.ascontiguousarray(zeros), 4, group)
