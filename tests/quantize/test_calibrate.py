from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Scheme, silent
from pipeline.numerics.histogram import StreamingHistogram
from pipeline.quantize import checkpoint
from pipeline.quantize.calibrate import CHANNELS, MEANS, RANGES, channels, hessians, ranges
from pipeline.quantize.hessians import HESSIANS
from pipeline.quantize.schemes import OBSERVERS

Make = Callable[..., Artifact]
Arrays = dict[str, NDArray[Any]]

STATIC = Scheme(name="t", weights=8, activations="static")
PERCENTILE = STATIC.model_copy(update={"observer": "percentile", "percentile": 97.0})


@pytest.fixture
def floats(make_graph: Make) -> Artifact:
    """y = relu(x @ W) @ V, of a float input: the activations `x` and `r`."""
    draw = np.random.default_rng(0).normal
    weights = {"W": draw(size=(64, 64)).astype(np.float32), "V": draw(size=(64, 80)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["p"], name="p"),
        helper.make_node("Relu", ["p"], ["r"], name="r"),
        helper.make_node("MatMul", ["r", "V"], ["y"], name="y"),
    ]
    return make_graph(nodes, weights, {"x": ["batch", "sequence", 64]}, {"y": ["batch", "sequence", 80]})


@pytest.fixture
def rows() -> list[Arrays]:
    """Eight samples of different lengths."""
    draw = np.random.default_rng(1).normal
    return [{"x": draw(size=(1, length, 64)).astype(np.float32)} for length in (1, 9, 3, 4, 30, 2, 2, 5)]


def activations(floats: Artifact, rows: list[Arrays]) -> Arrays:
    """All values of `x` and `r`, computed by numpy."""
    weight = {
        entry.name: numpy_helper.to_array(entry) for entry in onnx.load(floats.file("model.onnx")).graph.initializer
    }
    x = np.concatenate([row["x"][0] for row in rows])
    return {"x": x, "r": np.maximum(x @ weight["W"], 0)}


def test_minmax_is_numpys_over_all_samples(
    floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make
) -> None:
    artifact = run_stage(ranges, STATIC, graph=floats, samples=make_samples(rows))
    found = load_file(artifact.file(RANGES))
    expected = activations(floats, rows)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [values.min(), values.max()], rtol=1e-5)
    assert artifact.metadata == {"observer": "minmax", "tensors": 2, "samples": 8}


def test_percentile_is_that_of_all_values(
    floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make
) -> None:
    found = load_file(run_stage(ranges, PERCENTILE, graph=floats, samples=make_samples(rows)).file(RANGES))
    for name, values in activations(floats, rows).items():
        histogram = StreamingHistogram()
        histogram.add(values)
        np.testing.assert_allclose(found[name], histogram.range(97.0), atol=histogram.reach / 2048)


def test_channel_maxima_are_numpys(floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make) -> None:
    artifact = run_stage(channels, STATIC, graph=floats, samples=make_samples(rows))
    found = load_file(artifact.file(CHANNELS))
    for name, values in activations(floats, rows).items():
        np.testing.assert_allclose(found[name], np.abs(values).max(axis=0), rtol=1e-5)
    assert artifact.metadata == {"tensors": 2, "samples": 8}


def test_hessians_are_numpys(floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make) -> None:
    artifact = run_stage(hessians, STATIC, graph=floats, samples=make_samples(rows * 12))  # 672 rows: more than a flush
    found = load_file(artifact.file(HESSIANS))
    for name, values in activations(floats, rows * 12).items():
        expected = values.astype(np.float64).T @ values
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert artifact.metadata == {"tensors": 2, "samples": 96}


def test_tensor_between_two_readers_is_observed_once(graph: Artifact, samples: Artifact, run_stage: Make) -> None:
    found = load_file(run_stage(ranges, STATIC, graph=graph, samples=samples).file(RANGES))
    assert list(found) == ["h"]


def test_excluded_products_are_not_observed(
    floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make
) -> None:
    scheme = STATIC.model_copy(update={"nodes_to_exclude": ("p",)})
    found = load_file(run_stage(ranges, scheme, graph=floats, samples=make_samples(rows)).file(RANGES))
    assert list(found) == ["r"]


def test_nothing_to_observe_gives_no_ranges(
    floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make
) -> None:
    scheme = STATIC.model_copy(update={"nodes_to_exclude": ("p", "y")})
    for stage, file in ((ranges, RANGES), (channels, CHANNELS), (hessians, HESSIANS)):
        artifact = run_stage(stage, scheme, graph=floats, samples=make_samples(rows))
        assert load_file(artifact.file(file)) == {}
        assert artifact.metadata["tensors"] == 0


@pytest.mark.parametrize("stage", [ranges, channels])
def test_only_the_result_is_left(
    stage: Any, floats: Artifact, rows: list[Arrays], make_samples: Make, run_stage: Make
) -> None:
    """No copy of the graph with its observers, whose bytes would go into the artifact's digest."""
    artifact = run_stage(stage, STATIC, graph=floats, samples=make_samples(rows))
    assert {file.suffix for file in artifact.path.iterdir()} == {".safetensors"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0, 0), (0, 1, 3), (0, 8, 63)])
@pytest.mark.parametrize(("stage", "scheme"), [(ranges, STATIC), (ranges, PERCENTILE), (channels, STATIC)])
def test_values_that_are_not_finite_stop_the_stage(
    stage: Any,
    scheme: Scheme,
    at: tuple[int, ...],
    bad: float,
    floats: Artifact,
    rows: list[Arrays],
    make_samples: Make,
    run_stage: Make,
) -> None:
    rows[1]["x"][at] = bad
    with pytest.raises(StageError) as caught:
        run_stage(stage, scheme, graph=floats, samples=make_samples(rows))
    assert caught.value.message == ("Calibration sample 2 drives the tensor 'x' to a value that is not finite.")
    assert caught.value.remedy == "Look at that sample, and at the float model's output on it."


def test_failed_stage_leaves_nothing(
    floats: Artifact, rows: list[Arrays], layers_of: Make, make_samples: Make, tmp_path: Path
) -> None:
    rows[0]["x"][:] = np.nan
    config = {"scheme": STATIC.model_dump(mode="json")}
    inputs = {"graph": floats, "layers": layers_of(floats), "samples": make_samples(rows)}
    with pytest.raises(StageError):
        ranges(StageContext(config, inputs, tmp_path / "graph0", silent))
    assert {file.name for file in (tmp_path / "graph0").iterdir()} == {"graphs.json", "model.onnx"}


def test_progress_counts_samples(
    floats: Artifact, rows: list[Arrays], layers_of: Make, make_samples: Make, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"graph": floats, "layers": layers_of(floats), "samples": make_samples(rows)}
    config = {"scheme": STATIC.model_dump(mode="json")}
    ranges(StageContext(config, inputs, out, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (8, 8)  # in batches of one shape
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


class Killed(BaseException):
    """Stands for a signal: nothing in the stage may catch it."""


@pytest.mark.parametrize("observer", list(OBSERVERS))
def test_killed_calibration_goes_on_with_the_same_bytes(
    observer: str, network: Artifact, layers_of: Make, make_samples: Make, tmp_path: Path, monkeypatch: Any
) -> None:
    draw = np.random.default_rng(0).normal
    images = [{"x": draw(size=(1, 8, 20 + n)).astype(np.float32)} for n in range(8)]  # of eight shapes: each runs alone
    monkeypatch.setattr(checkpoint, "_EVERY", 3)
    scheme = STATIC.model_copy(update={"observer": observer})
    inputs = {"graph": network, "layers": layers_of(network), "samples": make_samples(images)}

    def run(name: str, scratch: str, stop: int = 0) -> tuple[Path, list[int]]:
        out, seen = tmp_path / name, []
        out.mkdir()

        def progress(done: int, _: int) -> None:
            seen.append(done)
            if done == stop:
                raise Killed

        config = {"scheme": scheme.model_dump(mode="json")}
        with contextlib.suppress(Killed):
            ranges(StageContext(config, inputs, out, progress, tmp_path / scratch))
        return out, seen

    whole, seen = run("whole", "other")
    assert seen == list(range(1, 9))
    assert run("cut", "kept", stop=5)[1] == [1, 2, 3, 4, 5]
    assert run("again", "kept", stop=7)[1] == [4, 5, 6, 7]
    resumed, seen = run("resumed", "kept")
    assert seen == [7, 8]
    for file in (RANGES, MEANS):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()


@pytest.fixture
def images() -> list[Arrays]:
    return [{"x": np.random.default_rng(seed).normal(size=(1, 8, 20)).astype(np.float32)} for seed in range(8)]


@pytest.fixture
def network(make_graph: Make) -> Artifact:
    """y = conv(relu(conv(x)))."""
    draw = np.random.default_rng(0).normal
    weights = {"V": draw(size=(64, 8, 9)).astype(np.float32), "W": draw(size=(16, 64, 1)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "V"], ["v"], name="v"),
        helper.make_node("Relu", ["v"], ["r"], name="r"),
        helper.make_node("Conv", ["r", "W"], ["y"], name="y"),
    ]
    return make_graph(nodes, weights, {"x": ["b", 8, "n"]}, {"y": ["b", 16, "m"]})


def test_channel_means_are_numpys(network: Artifact, images: list[Arrays], make_samples: Make, run_stage: Make) -> None:
    samples = make_samples(images)
    means = load_file(run_stage(ranges, STATIC, graph=network, samples=samples).file(MEANS))
    assert set(means) == {"x", "r"}
    np.testing.assert_allclose(means["x"], np.mean([row["x"] for row in images], axis=(0, 1, 3)), rtol=1e-5)
    without = STATIC.model_copy(update={"bias_correction": False})
    assert load_file(run_stage(ranges, without, graph=network, samples=samples).file(MEANS)) == {}


MEASURE = """
import sys
from pathlib import Path
from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext
from pipeline.core.types import Scheme, silent
from pipeline.quantize.calibrate import ranges
graph, layers, samples, out, observer = sys.argv[1:]
scheme = Scheme(name="t", weights=8, activations="static", observer=observer)
paths = {"graph": graph, "layers": layers, "samples": samples}
inputs = {role: Artifact(Path(path), "", "", "", {}) for role, path in paths.items()}
Path(out).mkdir()
ranges(StageContext({"scheme": scheme.model_dump(mode="json")}, inputs, Path(out), silent))
status = Path("/proc/self/status").read_text()  # getrusage would count this process's parent
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_memory_does_not_grow_with_samples(
    observer: str, make_graph: Make, layers_of: Make, make_samples: Make, tmp_path: Path
) -> None:
    """Activations of 1 MB a sample: 112 samples more would add 112 MB if they were kept."""
    weights = {"table": np.ones((50, 1024), np.float32), "W": np.ones((1024, 8), np.float32)}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"], name="g"),
        helper.make_node("MatMul", ["h", "W"], ["y"], name="y"),
    ]
    graph = make_graph(nodes, weights, {"ids": ["batch", "sequence"]}, {"y": ["batch", "sequence", 8]})
    found, peaks = layers_of(graph), []
    for count in (8, 120):
        samples = make_samples([{"ids": np.zeros((1, 256), np.int64)}] * count)
        arguments = [*(str(made.path) for made in (graph, found, samples)), str(tmp_path / f"out{count}"), observer]
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 50
