from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerics.histogram import StreamingHistogram
from pipeline.quantize.observers import ChannelMax, ChannelMean, Entropy, MeanSquaredError, MinMax, Percentile

NUMBER = st.floats(-1e6, 1e6, width=32)
BATCHES = st.lists(st.lists(NUMBER, min_size=1, max_size=8), min_size=1, max_size=5)


@given(BATCHES)
def test_minmax_is_numpys(batches: list[list[float]]) -> None:
    observer = MinMax(99.0)
    for batch in batches:
        observer.add(np.min(batch), np.max(batch), np.sum(batch))
    everything = np.concatenate(batches)
    assert observer.range() == (everything.min(), everything.max())


@given(BATCHES)
def test_percentile_is_the_histograms(batches: list[list[float]]) -> None:
    observer, histogram = Percentile(90.0), StreamingHistogram()
    for batch in batches:
        observer.add(np.array(batch))
        histogram.add(np.array(batch))
    assert observer.range() == histogram.range(90.0)


def test_percentile_cuts_what_minmax_keeps() -> None:
    values = np.append(np.linspace(-1, 1, 9999), 500).astype(np.float32)
    observer = Percentile(99.0)
    observer.add(values)
    low, high = observer.range()
    assert -1 <= low < high < 2


def test_channel_max_worked_by_hand() -> None:
    observer = ChannelMax(99.0)
    for magnitude in ([1.0, 5.0], [2.0, 4.0]):
        observer.add(np.array(magnitude, np.float32), np.zeros(()))
    assert observer.magnitude is not None
    assert observer.magnitude.tolist() == [2.0, 5.0]


def test_channel_mean_worked_by_hand() -> None:
    observer = ChannelMean(99.0)
    for means in ([[1.0, 5.0], [3.0, 7.0]], [[2.0, 6.0]]):  # batches of two samples and of one
        observer.add(np.array(means, np.float32))
    assert observer.mean().tolist() == [2.0, 6.0]


def test_channel_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="no samples were seen"):
        ChannelMean(99.0).mean()


@pytest.mark.parametrize("observer", [Percentile, Entropy, MeanSquaredError])
def test_histograms_go_on_where_they_were(observer: type) -> None:
    draw = np.random.default_rng(0).normal
    whole, first, second = observer(99.0), observer(99.0), observer(99.0)
    for values in (draw(size=50), draw(size=70, scale=9)):
        whole.add(values)
        (first if first.state()["counts"].sum() == 0 else second).add(values)
        if second.state()["counts"].sum() == 0:
            second.restore({name: array.copy() for name, array in first.state().items()})
    assert second.range() == whole.range()


@pytest.mark.parametrize(
    ("observer", "values"),
    [
        (MinMax, [np.float32(np.inf), np.float32(-np.inf), np.float32(0)]),
        (Percentile, [np.zeros((0, 4), np.float32)]),
        (ChannelMax, [np.full(4, -np.inf, np.float32), np.float32(0)]),
    ],
)
def test_a_tensor_without_values_says_nothing(observer, values) -> None:
    """What ONNX Runtime's reductions give for the slice of nothing."""
    assert observer.nothing(*values)


@pytest.mark.parametrize("observer", [MinMax, Percentile, Entropy, MeanSquaredError])
def test_the_range_of_nothing(observer: type) -> None:
    """The empty range, for which no scale is made."""
    assert observer(99.0).range() == (0.0, 0.0)
