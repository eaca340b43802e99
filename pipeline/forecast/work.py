"""The work of one inference, by kinds that cost alike on a processor."""

from __future__ import annotations

from pipeline.core.types import StrictModel


class Work(StrictModel):
    """Multiply-accumulates, values and calls of one inference, as ONNX Runtime executes the graph.

    Attributes:
        pointwise: Integer products without a window: MatMul, Gemm, 1x1 convolution; depth padded to 8 and width to 16
            values, as kernels with dot products compute them.
        window: Integer convolutions with a window, padded likewise.
        depthwise: Integer convolutions of one channel at a time.
        gathered: Values that grouped integer convolutions gather: output pixels times depth.
        floats: Products in float.
        byte_values: Values that integer products and operators on 8-bit codes write (pooling: read).
        float_values: Values that all other operators write.
        byte_calls, float_calls: How often operators of either sort are called; those that move nothing are not counted.
        convolved: The share of products that convolutions take, of either sort.
        integer: The share of products in integers.
        untold: Why the cost of a part of the graph is not known, in words; empty where all of it is.
    """

    pointwise: float = 0.0
    window: float = 0.0
    depthwise: float = 0.0
    gathered: float = 0.0
    floats: float = 0.0
    byte_values: float = 0.0
    float_values: float = 0.0
    byte_calls: float = 0.0
    float_calls: float = 0.0
    convolved: float = 0.0
    integer: float = 0.0
    untold: tuple[str, ...] = ()


KINDS = (
    "pointwise",
    "window",
    "depthwise",
    "gathered",
    "floats",
    "byte_values",
    "float_values",
    "byte_calls",
    "float_calls",
)
"""The fields that cost time."""
