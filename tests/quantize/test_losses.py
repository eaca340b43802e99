"""What a convolution loses to 8 bits, and what becomes of one that loses too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.types import Scheme
from pipeline.data.samples import open_samples, write_samples
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.files import saved
from pipeline.quantize.conv import region_of
from pipeline.quantize.layers import find_layers
from pipeline.quantize.losses import attach_losses, convolution_losses, evenly_spaced, lost_share
from pipeline.quantize.schemes import resolve_scheme
from pipeline.runtime.session import default_session

SIZE = 64
Model = Callable[[], ir.Model]


def static() -> Scheme:
    return resolve_scheme("w8a8", {}, "this test")


def cosines() -> np.ndarray:
    """A transform of windows of 64 values to 32 frequencies, as a kernel [32, 1, 64]."""
    frequencies, places = np.arange(32)[:, None], np.arange(SIZE)
    return np.cos(np.pi * frequencies * (places + 0.5) / SIZE).astype(np.float32)[:, None]


def save(path: Path, kernel: np.ndarray) -> ir.Model:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "transform", strides=[SIZE])],
        "waves",
        [info("x", TensorProto.FLOAT, ["batch", 1, "length"])],
        [info("y", TensorProto.FLOAT, ["batch", len(kernel), "frames"])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ir.from_proto(model)


def lost(folder: Path, kernel: np.ndarray, waves: np.ndarray) -> tuple[float, float]:
    """The losses of a convolution with this kernel on samples [n, length], ranges from their ends."""
    write_samples(folder, ({"x": wave[None, None]} for wave in waves))
    model, formats = save(folder, kernel), SchemeFormats(static())
    layers, _ = find_layers(model.graph, [])
    region = region_of(model.graph, layers, formats)
    ranges = {"x": np.array([waves.min(), waves.max()], np.float32), "y": np.zeros(2, np.float32)}
    outputs = attach_losses(model.graph, region, formats, ranges)
    with saved(model, folder / "losses.onnx") as path:
        found = convolution_losses(default_session(path), outputs, open_samples(folder))
    assert list(found) == ["transform"]
    return found["transform"]


def test_a_share_is_of_the_power_of_each_channel_and_of_all() -> None:
    signal, noise = np.array([100.0, 1.0, 0.0]), np.array([1.0, 2.0, 5.0])
    assert lost_share(signal, noise) == pytest.approx((0.01 + 1.0) / 2)
    assert lost_share(np.array([100.0, 1.0]), np.array([50.0, 0.0])) == pytest.approx(50 / 101)
    assert lost_share(np.zeros(2), np.ones(2)) == 0.0


def test_samples_are_taken_from_all_of_a_sequence() -> None:
    assert evenly_spaced(3) == [0, 1, 2]
    assert len(evenly_spaced(1000)) == 32
    assert (evenly_spaced(1000)[0], evenly_spaced(1000)[-1]) == (0, 999)


def test_a_loud_tone_drowns_the_quiet_ones(tmp_path: Path) -> None:
    """Tones of amplitude 1 and 0.001: the step of 8 bits is 1 / 127, of the waves as of the kernel. Beside it the
    same sums by numpy, with an exact kernel."""
    kernel, draw = cosines(), np.random.default_rng(0)
    loud, quiet = kernel[2, 0], draw.standard_normal((8, 1, 10)) @ kernel[5:15, 0]
    waves = np.tile(loud + 0.001 * quiet[:, 0], (1, 10)).astype(np.float32)
    integers, stored = lost(tmp_path, kernel, waves)
    step = (waves.max() - waves.min()) / 255
    codes = np.clip(np.round((waves - waves.min()) / step), 0, 255) * step + waves.min()
    exact, rounded = (windows.reshape(-1, SIZE) @ kernel[:, 0].T for windows in (waves, codes))
    expected = np.minimum(1, ((exact - rounded) ** 2).sum(0) / (exact**2).sum(0)).mean()
    assert integers == pytest.approx(expected, rel=0.2)
    assert integers > 0.3
    assert 0.1 < stored < integers


def test_noise_keeps_its_values(tmp_path: Path) -> None:
    waves = np.random.default_rng(0).standard_normal((8, 640)).astype(np.float32)
    integers, stored = lost(tmp_path, cosines(), waves)
    assert stored < integers < 0.002


@pytest.mark.parametrize(
    ("losses", "kind", "reason"),
    [
        ((0.009, 0.001), "integers", ""),
        ((0.05, 0.002), "stored", "in integers its output channels would lose 5.0 % of their power to rounding"),
        (
            (0.05, 0.02),
            "float",
            "in integers its output channels would lose 5.0 % of their power to rounding, and 2.0 % with the weight "
            "alone in 8 bits",
        ),
    ],
)
def test_what_integers_ruin_runs_in_float(tmp_path: Path, losses: tuple[float, float], kind: str, reason: str) -> None:
    model = save(tmp_path, cosines())
    layers, _ = find_layers(model.graph, [])
    region = region_of(model.graph, layers, SchemeFormats(static()), None, {"transform": losses})
    assert (len(region.convolutions), len(region.stored), len(region.left)) == {
        "integers": (1, 0, 0),
        "stored": (0, 1, 0),
        "float": (0, 0, 1),
    }[kind]
    assert not region.tensors or kind == "integers"
    assert [why for _, why in region.stored] == ([reason] if kind == "stored" else [])
    assert [entry.reason for entry in region.left] == ([reason] if kind == "float" else [])


def test_an_override_is_taken_as_it_is(tmp_path: Path) -> None:
    model = save(tmp_path, cosines())
    layers, _ = find_layers(model.graph, [])
    formats = SchemeFormats(static().model_copy(update={"overrides": (("transform", "int8-channel"),)}))
    region = region_of(model.graph, layers, formats, None, {"transform": (0.5, 0.5)})
    assert len(region.convolutions) == 1
