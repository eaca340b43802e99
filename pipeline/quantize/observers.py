"""Observers: how the range of an activation is found from samples that stream by."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from pipeline.numerics.clipping import entropy_range, mse_range
from pipeline.numerics.histogram import StreamingHistogram

State = dict[str, NDArray[Any]]
"""What an observer has seen, as arrays: what `state` gives, `restore` takes."""


def _reduced(graph: ir.Graph, value: ir.Value, op_type: str) -> ir.Value:
    """One number: the reduction of a whole tensor."""
    node = ir.node(op_type, [value], attributes={"keepdims": 0}, name=f"{value.name}/{op_type}")
    output = node.outputs[0]
    output.name, output.dtype, output.shape = f"{node.name}/output", ir.DataType.FLOAT, ir.Shape([])
    graph.append(node)
    return output


class MinMax:
    """The smallest and the largest value seen. Reduced inside the graph, so that only three numbers leave it: the sum
    is there because ONNX Runtime's ReduceMin and ReduceMax pass over NaN, which a sum cannot."""

    def __init__(self, percentile: float) -> None:  # noqa: ARG002  # all observers are made alike
        self._low, self._high = np.inf, -np.inf

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
        """Add what this observer reads to the graph, and return it as extra outputs."""
        return [_reduced(graph, value, op_type) for op_type in ("ReduceMin", "ReduceMax", "ReduceSum")]

    @staticmethod
    def nothing(low: NDArray[Any], high: NDArray[Any], _sum: NDArray[Any]) -> bool:
        """Whether this is what ONNX Runtime gives for a tensor without values (a slice of nothing)."""
        return float(low) == np.inf and float(high) == -np.inf

    def add(self, low: NDArray[Any], high: NDArray[Any], _sum: NDArray[Any]) -> None:
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))

    def range(self) -> tuple[float, float]:
        """Of nothing, if no value was seen."""
        return (self._low, self._high) if self._low <= self._high else (0.0, 0.0)

    def state(self) -> State:
        return {"ends": np.array([self._low, self._high])}

    def restore(self, state: State) -> None:
        self._low, self._high = (float(end) for end in state["ends"])


class _Histogram:
    """Counts all values of a tensor as they stream by."""

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._histogram = StreamingHistogram()

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:  # noqa: ARG004  # as MinMax
        return [value]

    @staticmethod
    def nothing(values: NDArray[Any]) -> bool:
        return not values.size

    def add(self, values: NDArray[Any]) -> None:
        self._histogram.add(values)

    def range(self) -> tuple[float, float]:
        """Of nothing, if no value was seen."""
        return self._found() if self._histogram.low <= self._histogram.high else (0.0, 0.0)

    def _found(self) -> tuple[float, float]:
        raise NotImplementedError

    def state(self) -> State:
        found = self._histogram
        return {"ends": np.array([found.low, found.high, found.reach]), "counts": found.counts}

    def restore(self, state: State) -> None:
        found = self._histogram
        found.low, found.high, found.reach = (float(end) for end in state["ends"])
        found.counts = state["counts"]


class Percentile(_Histogram):
    """The range that holds a percentile of all values (clipping outliers costs less than the coarser step they force:
    Wu et al., arXiv 2004.09602, sec. 5)."""

    def _found(self) -> tuple[float, float]:
        return self._histogram.range(self._percentile)


class MeanSquaredError(_Histogram):
    """The range with the least squared error of rounding and clipping together."""

    def _found(self) -> tuple[float, float]:
        return mse_range(self._histogram)


class Entropy(_Histogram):
    """The range that keeps the most information, as TensorRT calibrates."""

    def _found(self) -> tuple[float, float]:
        return entropy_range(self._histogram)


class ChannelMax:
    """The largest magnitude of every channel (last axis) of an activation, reduced inside the graph; with the sum, as
    MinMax."""

    def __init__(self, percentile: float) -> None:  # noqa: ARG002  # as MinMax
        self.magnitude: NDArray[np.float32] | None = None

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
        absolute = ir.node("Abs", [value], name=f"{value.name}/Abs")
        absolute.outputs[0].name = f"{value.name}/Abs/output"
        # to [rows, channels] first, since the activation's rank is not known to the graph
        flat = ir.node("Flatten", [absolute.outputs[0]], attributes={"axis": -1}, name=f"{value.name}/Flatten")
        flat.outputs[0].name = f"{value.name}/Flatten/output"
        axes = ir.val(f"{value.name}/axes", const_value=ir.tensor(np.array([0], np.int64)))
        graph.register_initializer(axes)
        largest = ir.node(
            "ReduceMax", [flat.outputs[0], axes], attributes={"keepdims": 0}, name=f"{value.name}/ReduceMax"
        )
        largest.outputs[0].name = f"{value.name}/ReduceMax/output"
        largest.outputs[0].dtype = ir.DataType.FLOAT
        largest.outputs[0].shape = ir.Shape([None])
        graph.extend([absolute, flat, largest])
        return [largest.outputs[0], _reduced(graph, value, "ReduceSum")]

    @staticmethod
    def nothing(magnitude: NDArray[np.float32], _sum: NDArray[Any]) -> bool:
        return bool((magnitude == -np.inf).all())

    def add(self, magnitude: NDArray[np.float32], _sum: NDArray[Any]) -> None:
        self.magnitude = magnitude if self.magnitude is None else np.maximum(self.magnitude, magnitude)

    def state(self) -> State:
        return {} if self.magnitude is None else {"magnitude": self.magnitude}

    def restore(self, state: State) -> None:
        self.magnitude = state.get("magnitude")


class ChannelMean:
    """The mean of every channel (axis 1) of a convolution's input, over samples and positions; reduced inside the
    graph."""

    def __init__(self, percentile: float) -> None:  # noqa: ARG002  # as MinMax
        self._sum: NDArray[np.float64] | None = None
        self._samples = 0

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
        # to [batch, channels, positions] first, since the activation's rank is not known to the graph
        shape = ir.val(f"{value.name}/shape", const_value=ir.tensor(np.array([0, 0, -1], np.int64)))
        axes = ir.val(f"{value.name}/positions", const_value=ir.tensor(np.array([2], np.int64)))
        for added in (shape, axes):
            graph.register_initializer(added)
        flat = ir.node("Reshape", [value, shape], name=f"{value.name}/Reshape")
        flat.outputs[0].name = f"{value.name}/Reshape/output"
        mean = ir.node("ReduceMean", [flat.outputs[0], axes], attributes={"keepdims": 0}, name=f"{value.name}/Mean")
        mean.outputs[0].name = f"{value.name}/Mean/output"
        mean.outputs[0].dtype, mean.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([None, None])
        graph.extend([flat, mean])
        return [mean.outputs[0]]

    @staticmethod
    def nothing(means: NDArray[np.float32]) -> bool:
        return not means.size

    def add(self, means: NDArray[np.float32]) -> None:
        total = means.sum(0, dtype=np.float64)
        self._sum = total if self._sum is None else self._sum + total
        self._samples += len(means)

    def mean(self) -> NDArray[np.float32]:
        """float32 [channels]; ValueError if there was no sample."""
        if self._sum is None:
            raise ValueError("no samples were seen")
        return (self._sum / self._samples).astype(np.float32)

    def state(self) -> State:
        return {"samples": np.array(self._samples)} | ({} if self._sum is None else {"sum": self._sum})

    def restore(self, state: State) -> None:
        self._sum, self._samples = state.get("sum"), int(state["samples"])


class Values:
    """How many values a tensor has, over all samples."""

    def __init__(self, percentile: float) -> None:  # noqa: ARG002  # as MinMax
        self.total = 0.0

    @staticmethod
    def attach(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
        size = ir.node("Size", [value], name=f"{value.name}/Size")
        size.outputs[0].name = f"{value.name}/Size/output"
        real = ir.node("Cast", [size.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=f"{value.name}/Values")
        real.outputs[0].name, real.outputs[0].shape = f"{value.name}/Values/output", ir.Shape([])
        graph.extend([size, real])
        return [real.outputs[0]]

    @staticmethod
    def nothing(_count: NDArray[np.float32]) -> bool:
        """A tensor without values has none, and that is known."""
        return False

    def add(self, count: NDArray[np.float32]) -> None:
        self.total += float(count)

    def state(self) -> State:
        return {"total": np.array(self.total)}

    def restore(self, state: State) -> None:
        self.total = float(state["total"])
