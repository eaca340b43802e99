"""The named schemes: aliases of number-format records, as the field names them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pipeline.core.errors import UsageError
from pipeline.core.registry import Registry
from pipeline.core.types import Scheme
from pipeline.formats.scheme import check_scheme

FP32 = Scheme(name="fp32")
W8A8_DYNAMIC = Scheme(name="w8a8-dynamic", weights=8, activations="dynamic", embeddings=8, smoothing=0.75)
W8A8 = Scheme(name="w8a8", weights=8, activations="static", embeddings=8, smoothing=0.75)
# accuracy_level 4: with float arithmetic 8-bit blocks run at two thirds of float's speed, with INT8 at 1.2 times
W8 = Scheme(name="w8", weights=8, embeddings=8, scale_bits=16, accuracy_level=4)
W4 = Scheme(name="w4", weights=4, embeddings=4, block_size=32, embedding_block_size=128, scale_bits=16, rounding="gptq")
W4A8 = W4.model_copy(update={"name": "w4a8", "accuracy_level": 4})
W4A8_DYNAMIC = W4.model_copy(update={"name": "w4a8-dynamic", "activations": "dynamic"})
W4A8_STATIC = W4.model_copy(update={"name": "w4a8-static", "activations": "static"})
W8A8_NPU = Scheme(
    name="w8a8-npu", weights=8, activations="static", everywhere=8, embeddings=8, smoothing=0.75, reduce_range=False
)
W8A16_NPU = W8A8_NPU.model_copy(update={"name": "w8a16-npu", "everywhere": 16, "smoothing": None})
FP16 = Scheme(name="fp16", weights=16, embeddings=16)

SCHEMES: Registry[Scheme] = Registry(
    "scheme",
    {
        "fp32": "pipeline.quantize.schemes:FP32",
        "w8a8-dynamic": "pipeline.quantize.schemes:W8A8_DYNAMIC",
        "w8a8": "pipeline.quantize.schemes:W8A8",
        "w8": "pipeline.quantize.schemes:W8",
        "w4": "pipeline.quantize.schemes:W4",
        "w4a8": "pipeline.quantize.schemes:W4A8",
        "w4a8-dynamic": "pipeline.quantize.schemes:W4A8_DYNAMIC",
        "w4a8-static": "pipeline.quantize.schemes:W4A8_STATIC",
        "w8a8-npu": "pipeline.quantize.schemes:W8A8_NPU",
        "w8a16-npu": "pipeline.quantize.schemes:W8A16_NPU",
        "fp16": "pipeline.quantize.schemes:FP16",
    },
    parts=("name", "model_dump"),
)

OBSERVERS: Registry[type] = Registry(
    "observer",
    {
        "minmax": "pipeline.quantize.observers:MinMax",
        "percentile": "pipeline.quantize.observers:Percentile",
        "entropy": "pipeline.quantize.observers:Entropy",
        "mse": "pipeline.quantize.observers:MeanSquaredError",
    },
    parts=("attach", "nothing", "add", "range", "state", "restore"),
)


def resolve_scheme(given: str | dict[str, Any], overrides: dict[str, Any], where: str) -> Scheme:
    """A scheme by name, or `{base = name, ...}`; `overrides` come from the command line and win.

    UsageError for an unknown name, key or value.
    """
    table = {"base": given} if isinstance(given, str) else dict(given)
    if "base" not in table:
        raise UsageError(f"{where}: a scheme table needs `base`.", f"Allowed: {', '.join(SCHEMES)}.")
    scheme = SCHEMES.get(table.pop("base"))
    changed = {**scheme.model_dump(), **table, **overrides}
    resolved = Scheme.from_data(changed, f"the scheme of {where}")
    OBSERVERS.require(resolved.observer)
    check_scheme(resolved)
    return resolved


def describe(scheme: BaseModel) -> dict[str, Any]:
    """The scheme's fields as plain data, for keys and reports."""
    return scheme.model_dump(mode="json")
