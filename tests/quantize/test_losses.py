"""What layers lose to 8 bits, and what becomes of one that loses too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.artifact import Artifact
from pipeline.core.types import Scheme
from pipeline.data.samples import open_samples, write_samples
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.files import saved
from pipeline.quantize import calibrate, quantize, write
from pipeline.quantize.conv import region_of
from pipeline.quantize.layers import find_layers
from pipeline.quantize.losses import attach_losses, evenly_spaced, layer_losses, lost_share, pieces, rounded_layers
from pipeline.quantize.ruined import Damage
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


def convolution(kernel: np.ndarray) -> ir.Model:
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


def product(factor: np.ndarray) -> ir.Model:
    """Frames [batch, frames, inputs] times `factor`."""
    info, axes = helper.make_tensor_value_info, ["batch", "frames"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "transform")],
        "frames",
        [info("x", TensorProto.FLOAT, [*axes, len(factor)])],
        [info("y", TensorProto.FLOAT, [*axes, factor.shape[1]])],
        [numpy_helper.from_array(factor, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ir.from_proto(model)


def lost(folder: Path, model: ir.Model, inputs: np.ndarray) -> tuple[float, float]:
    """The losses of the layer of a model on samples [n, ...], ranges from their ends."""
    folder.mkdir(exist_ok=True)
    write_samples(folder, ({"x": one[None]} for one in inputs))
    formats = SchemeFormats(static())
    layers, _ = find_layers(model.graph, [])
    region = region_of(model.graph, layers, formats)
    ranges = {"x": np.array([inputs.min(), inputs.max()], np.float32), "y": np.zeros(2, np.float32)}
    outputs = attach_losses(model.graph, rounded_layers(layers, region, formats, ranges), formats)
    with saved(model, folder / "losses.onnx") as path:
        found = layer_losses(default_session(path), outputs, open_samples(folder))
    assert list(found) == ["transform"]
    return found["transform"]


def test_a_share_is_of_the_power_of_each_channel_and_of_all() -> None:
    signal, noise = np.array([100.0, 1.0, 0.0]), np.array([1.0, 2.0, 5.0])
    assert lost_share(signal, noise) == pytest.approx((0.01 + 1.0) / 2)
    assert lost_share(np.array([100.0, 1.0]), np.array([50.0, 0.0])) == pytest.approx(50 / 101)
    assert lost_share(np.zeros(2), np.ones(2)) == 0.0
    assert lost_share(np.array([100.0, 1e-23]), np.array([1.0, 1e-23])) == pytest.approx(0.01)
    assert lost_share(np.array([100.0, 1e-21]), np.array([1.0, 1e-21])) == pytest.approx((0.01 + 1) / 2)


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
    integers, stored = lost(tmp_path, convolution(kernel), waves[:, None])
    step = (waves.max() - waves.min()) / 255
    codes = np.clip(np.round((waves - waves.min()) / step), 0, 255) * step + waves.min()
    exact, rounded = (windows.reshape(-1, SIZE) @ kernel[:, 0].T for windows in (waves, codes))
    expected = np.minimum(1, ((exact - rounded) ** 2).sum(0) / (exact**2).sum(0)).mean()
    assert integers == pytest.approx(expected, rel=0.2)
    assert integers > 0.3
    assert 0.1 < stored < integers


def test_noise_keeps_its_values(tmp_path: Path) -> None:
    waves = np.random.default_rng(0).standard_normal((8, 640)).astype(np.float32)
    integers, stored = lost(tmp_path, convolution(cosines()), waves[:, None])
    assert stored < integers < 0.002


def test_a_product_that_reads_a_power_spectrum(tmp_path: Path) -> None:
    """Bands of a spectrum that falls by 100 dB: beside the loud ones, 8 bits leave nothing of the quiet ones. Of its
    logarithm everything is left. The same sums by numpy beside it, with an exact factor."""
    draw, bands = np.random.default_rng(0), np.kron(np.eye(32), np.ones((4, 1))).astype(np.float32)
    bands *= draw.uniform(0.5, 1.5, bands.shape).astype(np.float32)
    power = (10 ** np.linspace(0, -10, 128) * draw.chisquare(2, (8, 20, 128))).astype(np.float32)
    integers, stored = lost(tmp_path / "power", product(bands), power)
    step = power.max() / 255
    exact, rounded = ((values @ bands).reshape(-1, 32) for values in (power, np.round(power / step) * step))
    expected = np.minimum(1, ((exact - rounded) ** 2).sum(0) / (exact**2).sum(0)).mean()
    assert integers == pytest.approx(expected, rel=0.05)
    assert integers > 0.5
    assert stored < 1e-4
    assert max(lost(tmp_path / "log", product(bands), np.log(power))) < 0.001


@pytest.mark.parametrize(("power", "kind"), [(1.0, "int8-stored"), (0.02, "int8-channel")])
def test_the_bands_of_a_spectrum_keep_their_decibels(
    power: float,
    kind: str,
    make_graph: Callable[..., Artifact],
    make_samples: Callable[..., Artifact],
    run_stage: Callable[..., Artifact],
    run_model: Callable[..., list[np.ndarray]],
) -> None:
    """A front end from frames to the logarithms of bands, as written. Moments of a recording lie 60 dB apart, unless a
    root has brought them together before: then integers do."""
    draw = np.random.default_rng(0)
    bands = np.kron(np.eye(48), np.ones((3, 1))) * draw.uniform(0.5, 1.5, (144, 48))
    nodes = [
        helper.make_node("Pow", ["frames", "power"], ["spectrum"]),
        helper.make_node("MatMul", ["spectrum", "bands"], ["energies"], "bands/MatMul"),
        helper.make_node("Log", ["energies"], ["y"]),
    ]
    weights = {"bands": bands.astype(np.float32), "power": np.array(power, np.float32)}
    graph = make_graph(nodes, weights, {"frames": [1, "n", 144]}, {"y": [1, "n", 48]})
    loud = 10 ** draw.uniform(-6, 0, (12, 1, 20, 1))
    frames = (loud * draw.chisquare(2, (12, 1, 20, 144))).astype(np.float32)
    samples = make_samples([{"frames": one} for one in frames[:8]])
    ranges = run_stage(calibrate.ranges, static(), graph=graph, samples=samples)
    plan = run_stage(quantize.run, static(), graph=graph, ranges=ranges)
    assert [entry["format"] for entry in plan.metadata["formats"]] == [kind]
    assert list(plan.metadata["stored_only"]) == (["bands"] if kind == "int8-stored" else [])
    written = run_stage(write.run, None, graph=graph, plan=plan)
    (wanted,), (found,) = (run_model(model, frames=frames[8]) for model in (graph, written))
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


def test_layers_are_measured_a_piece_at_a_time() -> None:
    assert pieces([], 10) == []
    assert pieces([4, 4, 4, 20, 1], 10) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
    assert pieces([10] * 8, 1) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]


def test_channels_that_weight_decay_left_do_not_count(tmp_path: Path) -> None:
    """As a published network of spectrograms has them: their scales are too small for float32."""
    kernel = cosines()
    kernel[:8] *= np.float32(1e-40)
    waves = np.random.default_rng(0).standard_normal((8, 640)).astype(np.float32)
    integers, stored = lost(tmp_path, convolution(kernel), waves[:, None])
    assert stored < integers < 0.002


@pytest.mark.parametrize(
    ("losses", "kind", "reason"),
    [
        ((0.009, 0.001), "integers", ""),
        ((0.05, 0.002), "stored", "in integers its output channels would lose 5.0 % of their power to rounding"),
        (
            (0.05, 0.02),
            "half",
            "in integers its output channels would lose 5.0 % of their power to rounding, and 2.0 % with the weight "
            "alone in 8 bits",
        ),
    ],
)
def test_what_integers_ruin_runs_in_float(tmp_path: Path, losses: tuple[float, float], kind: str, reason: str) -> None:
    model = convolution(cosines())
    layers, _ = find_layers(model.graph, [])
    region = region_of(model.graph, layers, SchemeFormats(static()), None, Damage({"transform": losses}))
    assert (len(region.convolutions), len(region.stored)) == ((1, 0) if kind == "integers" else (0, 1))
    assert not region.tensors or kind == "integers"
    bits = {"integers": [], "stored": [8], "half": [16]}[kind]
    assert [(form.code_bits, why) for _, form, why in region.stored] == [(each, reason) for each in bits]
    assert region.left == ()


def test_an_override_is_taken_as_it_is(tmp_path: Path) -> None:
    model = convolution(cosines())
    layers, _ = find_layers(model.graph, [])
    formats = SchemeFormats(static().model_copy(update={"overrides": (("transform", "int8-channel"),)}))
    region = region_of(model.graph, layers, formats, None, Damage({"transform": (0.5, 0.5)}))
    assert len(region.convolutions) == 1
