"""Convolutions that cost the output more in integers than they save, and stored weights that need 16 bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.quantize import calibrate, noise, quantize
from pipeline.quantize import write as writing
from pipeline.quantize.plan import PLAN

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]
STATIC = Scheme(name="t", weights=8, activations="static")


def conv(source: str, weight: str, target: str) -> NodeProto:
    return helper.make_node("Conv", [source, weight], [target], name=target, pads=[1, 1, 1, 1])


def kernel(outputs: int, inputs: int, seed: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(seed).normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
    return draw.astype(np.float32)


@pytest.fixture
def rows() -> list[Arrays]:
    """Images whose first channel is 7 times as loud as the others."""
    rows = []
    for seed in range(6):
        image = np.random.default_rng(seed).normal(size=(1, 64, 8, 8)).astype(np.float32)
        image[:, 0] *= 7
        rows.append({"x": image})
    return rows


@pytest.fixture
def fragile(make_graph: Make) -> Artifact:
    """A light convolution that does not use the loud channel of `x`, and two heavy ones behind it."""
    first = kernel(64, 64, 0)
    first[:, 0] = 0
    weights = {"A": first, "B": kernel(256, 64, 1), "C": kernel(256, 256, 2)}
    nodes = [
        conv("x", "A", "a"),
        helper.make_node("Tanh", ["a"], ["t"], name="t"),
        conv("t", "B", "b"),
        conv("b", "C", "y"),
    ]
    return make_graph(nodes, weights, {"x": ["n", 64, 8, 8]}, {"y": ["n", 256, 8, 8]})


def quantized(graph: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make) -> Any:
    """(noise, plan, written model)."""
    samples = make_samples(rows)
    ranges = run_stage(calibrate.ranges, STATIC, graph=graph, samples=samples)
    found = run_stage(noise.run, STATIC, graph=graph, samples=samples, ranges=ranges)
    plan = run_stage(quantize.run, STATIC, graph=graph, ranges=ranges, noise=found)
    return found, plan, run_stage(writing.run, None, graph=graph, plan=plan)


def sqnr(graph: Artifact, written: Artifact, rows: list[Arrays], run_model: Callable[..., Any]) -> float:
    pairs = [(run_model(graph, **row)[0], run_model(written, **row)[0]) for row in rows]
    signal = sum(float(np.square(exact).sum()) for exact, _ in pairs)
    return 10 * float(np.log10(signal / sum(float(np.square(exact - other).sum()) for exact, other in pairs)))


def test_the_one_that_makes_the_noise_runs_in_float(
    fragile: Artifact, rows: list[Arrays], run_stage: Make, make_samples: Make, run_model: Callable[..., Any]
) -> None:
    found, plan, written = quantized(fragile, rows, run_stage, make_samples)
    said = json.loads(found.file(quantize.NOISE).read_text())
    assert list(said["noisy"]) == ["A"]
    assert said["noisy"]["A"].startswith("in integers it alone brings the outputs to ")
    assert [entry["node"] for entry in plan.metadata["formats"] if entry["format"] == "int8-channel"] == ["b", "y"]
    assert plan.metadata["stored_only"]["A"].endswith(said["noisy"]["A"])
    ranges = run_stage(calibrate.ranges, STATIC, graph=fragile, samples=make_samples(rows))
    bare = run_stage(quantize.run, STATIC, graph=fragile, ranges=ranges)
    before = run_stage(writing.run, None, graph=fragile, plan=bare)
    gained = sqnr(fragile, written, rows, run_model) - sqnr(fragile, before, rows, run_model)
    assert gained > 3


def test_even_noise_changes_nothing(make_graph: Make, run_stage: Make, make_samples: Make) -> None:
    weights = {"A": kernel(64, 16, 0), "B": kernel(64, 64, 1), "C": kernel(64, 64, 2)}
    nodes = [conv("x", "A", "a"), conv("a", "B", "b"), conv("b", "C", "y")]
    graph = make_graph(nodes, weights, {"x": ["n", 16, 8, 8]}, {"y": ["n", 64, 8, 8]})
    rows = [{"x": np.random.default_rng(seed).normal(size=(1, 16, 8, 8)).astype(np.float32)} for seed in range(6)]
    found, plan, _ = quantized(graph, rows, run_stage, make_samples)
    assert json.loads(found.file(quantize.NOISE).read_text()) == {"noisy": {}, "wide": {}}
    assert plan.metadata["convolutions"] == 3


@pytest.mark.parametrize(("spread", "bits"), [(1.0, 8), (400.0, 16)])
def test_a_weight_that_is_only_stored_takes_the_bits_it_needs(
    make_graph: Make, run_stage: Make, make_samples: Make, run_model: Callable[..., Any], spread: float, bits: int
) -> None:
    """A narrow GRU. The state of its first unit never leaves 0, so that what reads it may be as large as it likes, and
    only makes the steps of 8 bits coarse."""
    draw = np.random.default_rng(0).normal
    recurrent = draw(size=(1, 96, 32)) / 32
    recurrent[:, :, 0] *= spread
    weights = {"W": (draw(size=(1, 96, 48)) / 7).astype(np.float32), "R": recurrent.astype(np.float32)}
    weights["B"] = np.zeros((1, 192), np.float32)
    weights["B"][0, 0] = 40  # of the gate that keeps the state
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["", "y"], name="g", hidden_size=32)
    graph = make_graph([node], weights, {"x": [20, 1, 48]}, {"y": [1, 1, 32]})
    rows = [{"x": np.random.default_rng(seed).normal(size=(20, 1, 48)).astype(np.float32)} for seed in range(6)]
    found, plan, written = quantized(graph, rows, run_stage, make_samples)
    stored = {entry["name"]: entry["format"] for entry in plan.metadata["formats"]}
    assert stored == {"W": "int8-stored", "R": "int8-stored" if bits == 8 else "fp16"}
    assert list(json.loads(found.file(quantize.NOISE).read_text())["wide"]) == ([] if bits == 8 else ["R"])
    assert sqnr(graph, written, rows, run_model) > 35


def test_an_output_without_a_signal_is_not_judged(make_graph: Make, run_stage: Make, make_samples: Make) -> None:
    nodes = [conv("x", "A", "a"), helper.make_node("Sub", ["a", "a"], ["y"], name="s")]
    graph = make_graph(nodes, {"A": kernel(64, 64, 0)}, {"x": ["n", 64, 8, 8]}, {"y": ["n", 64, 8, 8]})
    rows = [{"x": np.random.default_rng(seed).normal(size=(1, 64, 8, 8)).astype(np.float32)} for seed in range(3)]
    found, _, _ = quantized(graph, rows, run_stage, make_samples)
    assert json.loads(found.file(quantize.NOISE).read_text()) == {"noisy": {}, "wide": {}}


def test_a_stored_weight_takes_no_more_room_than_there_is(
    make_graph: Make, run_stage: Make, make_samples: Make, run_model: Callable[..., Any]
) -> None:
    """A convolution of each channel alone, whose inputs are 3 in the mean: in 16 bits it would be quieter, for twice
    the bytes of all weights. With the mean taken out of its bias it is quiet enough in 8."""
    weights = {"A": np.random.default_rng(0).normal(size=(160, 1, 3, 3)).astype(np.float32)}
    node = helper.make_node("Conv", ["x", "A"], ["y"], name="y", group=160)
    graph = make_graph([node], weights, {"x": ["n", 160, 8, 8]}, {"y": ["n", 160, 6, 6]})
    rows = [{"x": np.random.default_rng(seed).normal(3, 1, (1, 160, 8, 8)).astype(np.float32)} for seed in range(6)]
    found, plan, written = quantized(graph, rows, run_stage, make_samples)
    assert json.loads(found.file(quantize.NOISE).read_text()) == {"noisy": {}, "wide": {}}
    assert [entry["format"] for entry in plan.metadata["formats"]] == ["int8-stored"]
    assert sqnr(graph, written, rows, run_model) > 45


@pytest.mark.parametrize(("columns", "ranges"), [(8, "run time"), (4096, "calibrated")])
def test_products_behind_float_convolutions_find_their_ranges_at_run_time(
    columns: int, ranges: str, make_graph: Make, run_stage: Make, make_samples: Make
) -> None:
    """Where those are most of the work: a convolution of each channel alone runs in float, its mean goes on."""
    draw = np.random.default_rng(0).normal
    weights = {"A": draw(size=(520, 1, 3, 3)).astype(np.float32), "B": draw(size=(520, columns)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "A"], ["a"], name="a", group=520),
        helper.make_node("GlobalAveragePool", ["a"], ["g"], name="g"),
        helper.make_node("Flatten", ["g"], ["f"], name="f"),
        helper.make_node("MatMul", ["f", "B"], ["y"], name="y"),
    ]
    graph = make_graph(nodes, weights, {"x": ["n", 520, 8, 8]}, {"y": ["n", columns]})
    rows = [{"x": np.random.default_rng(seed).normal(size=(1, 520, 8, 8)).astype(np.float32)} for seed in range(6)]
    _, plan, _ = quantized(graph, rows, run_stage, make_samples)
    linears = json.loads(plan.file(PLAN).read_text())["linears"]
    assert [entry["input"]["ranges"] for entry in linears] == [ranges]
    assert plan.metadata["at_run_time"] == (1 if ranges == "run time" else 0)


UNITS = 192
"""The fewest with which an LSTM runs in integers."""


@pytest.fixture
def recurrent(make_graph: Make) -> Artifact:
    """An LSTM that does not use the first channel of `x`."""
    draw = np.random.default_rng(0)
    weights = {
        "W": (draw.normal(size=(1, 4 * UNITS, 8)) / 3).astype(np.float32),
        "R": (draw.normal(size=(1, 4 * UNITS, UNITS)) / 20).astype(np.float32),
    }
    weights["W"][:, :, 0] = 0
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], name="lstm", hidden_size=UNITS)
    return make_graph([node], weights, {"x": ["t", "n", 8]}, {"y": ["t", 1, "n", UNITS]})


def sequences(loud: float) -> list[Arrays]:
    """Of 12 vectors, whose first channel is so many times as loud as the others."""
    drawn = np.random.default_rng(1).normal(size=(6, 12, 1, 8)).astype(np.float32)
    drawn[:, :, :, 0] *= loud
    return [{"x": each} for each in drawn]


def test_an_lstm_that_integers_ruin_is_stored_only(
    recurrent: Artifact, run_stage: Make, make_samples: Make, run_model: Callable[..., Any]
) -> None:
    """One scale for all inputs leaves nothing of those that it uses, beside one that is a thousand times as loud."""
    rows = sequences(1000)
    found, plan, written = quantized(recurrent, rows, run_stage, make_samples)
    said = json.loads(found.file(quantize.NOISE).read_text())
    assert sorted(said["noisy"]) == ["R", "W"]
    assert {entry["name"]: entry["format"] for entry in plan.metadata["formats"]} == {
        "W": "int8-stored",
        "R": "int8-stored",
    }
    assert plan.metadata["stored_only"]["W"] == f"stored and computed in float: {said['noisy']['W']}"
    assert sqnr(recurrent, written, rows, run_model) > 30


def test_an_lstm_that_integers_do_not_ruin_keeps_them(recurrent: Artifact, run_stage: Make, make_samples: Make) -> None:
    found, plan, _ = quantized(recurrent, sequences(1), run_stage, make_samples)
    assert json.loads(found.file(quantize.NOISE).read_text())["noisy"] == {}
    assert {entry["format"] for entry in plan.metadata["formats"]} == {"int8-lstm"}
