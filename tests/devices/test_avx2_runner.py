"""An x86-64 CPU without VNNI, emulated: there 8-bit weights overflow, unless neighbours add up to 128 at most."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pipeline.checks.saturation import overflow
from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.core.errors import EdgeError, StageError, UsageError
from pipeline.core.types import Evidence
from pipeline.devices import avx2_runner, runner_of
from pipeline.devices.avx2_runner import AVX2, state
from pipeline.devices.runner import lacking, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Facts
from pipeline.runtime.session import default_session

Feed = dict[str, NDArray[np.float32]]


@pytest.fixture
def emulated() -> None:
    """Skips where there is no emulator."""
    try:
        avx2_runner._emulator()
    except EdgeError as error:
        pytest.skip(f"the runner avx2 cannot run here: {error.message}")


@pytest.fixture
def product(tmp_path: Path) -> Callable[[int], Path]:
    """A product with weights from -most to most, whose inputs' ranges are found at run time."""

    def make(most: int) -> Path:
        codes = np.random.default_rng(0).integers(-most, most + 1, (256, 64)).astype(np.int8)
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["codes", "w", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["floats"], to=1),
            helper.make_node("Mul", ["floats", "scale"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "product",
            [helper.make_tensor_value_info("x", 1, ["n", 256])],
            [helper.make_tensor_value_info("y", 1, ["n", 64])],
            [numpy_helper.from_array(codes, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        assert (overflow(model, tmp_path).overflowing > 0) == (most > 64)
        onnx.save(model, tmp_path / f"{most}.onnx")
        return tmp_path / f"{most}.onnx"

    return make


def test_it_is_named_as_a_runner_and_gives_answers_of_a_few_samples() -> None:
    target = load_target("phone").model_copy(update={"runner": "avx2"})
    assert runner_of(target) is AVX2
    assert (AVX2.evidence, list(AVX2.tiers)) == (Evidence.EMULATED, ["avx2"])
    assert lacking(AVX2, "times") == "under emulation a time is the emulator's, not the CPU's"


def test_what_it_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("EDGE_DEVICES", "/nonexistent")
    with pytest.raises(StageError, match=r"The runner avx2 needs the emulator qemu-x86_64, which is not here\."):
        AVX2.run(Facts(), 10.0)
    assert "edge devices setup arm64" in state()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UsageError, match="needs Linux on x86-64; this is Linux on aarch64"):
        AVX2.run(Facts(), 10.0)


@pytest.fixture
def convolution(tmp_path: Path) -> Callable[[int, int], tuple[Path, Feed]]:
    """One in integers whose neighbouring weights of one sign add up to 128, on an image of the largest codes."""

    def make(channels: int, groups: int) -> tuple[Path, Feed]:
        draw = np.random.default_rng(0)
        first, sign = draw.integers(1, 128, (32, 9 * channels)), draw.choice([-1, 1], (32, 9 * channels))
        first[:, 1::2], sign[:, 1::2] = 128 - first[:, : 9 * channels - 1 : 2], sign[:, : 9 * channels - 1 : 2]
        weight = np.moveaxis((sign * first).reshape(32, 3, 3, channels), -1, 1).astype(np.int8)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["w", "scale"], ["weight"]),
            helper.make_node("Conv", ["rounded", "weight"], ["sums"], group=groups),
            helper.make_node("QuantizeLinear", ["sums", "scale", "middle"], ["out"]),
            helper.make_node("DequantizeLinear", ["out", "scale", "middle"], ["y"]),
        ]
        arrays = {"step": np.float32(1 / 255), "zero": np.uint8(0), "middle": np.uint8(128), "w": weight}
        arrays["scale"] = np.float32(0.1)
        shape = ["n", channels * groups, 8, 8]
        graph = helper.make_graph(
            nodes,
            "convolution",
            [helper.make_tensor_value_info("x", 1, shape)],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "convolution.onnx")
        return tmp_path / "convolution.onnx", {"x": np.ones((1, channels * groups, 8, 8), np.float32)}

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (3, 1), (1, 1), (5, 4), (1, 32)])
def test_convolutions_whose_neighbours_add_up_to_128_answer_alike(
    channels: int, groups: int, convolution: Callable[[int, int], tuple[Path, Feed]]
) -> None:
    path, feed = convolution(channels, groups)
    (there,) = RunnerSession(AVX2, subject_of(path, path, Runtime())).run(["y"], feed)
    (here,) = default_session(path).run(["y"], feed)
    np.testing.assert_array_equal(there, here)


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("most", "alike"), [(64, True), (127, False)])
def test_weights_that_overflow_answer_otherwise(most: int, alike: bool, product: Callable[[int], Path]) -> None:
    """Where this machine has VNNI; without it, both are emulated alike."""
    path = product(most)
    feed = {"x": np.abs(np.random.default_rng(1).standard_normal((4, 256))).astype(np.float32)}
    (there,) = RunnerSession(AVX2, subject_of(path, path, Runtime())).run(["y"], feed)
    (here,) = default_session(path).run(["y"], feed)
    if not alike and not {"avx512_vnni", "avx_vnni"} & set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("this CPU has no VNNI itself: its own sums overflow too")
    assert np.array_equal(there, here) == alike
