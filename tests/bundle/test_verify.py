"""Golden samples, records and graphs of a bundle: `verify` raises only its own errors, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console
from small_bundle import WEIGHTS, resealed, rewritten

from pipeline.api import check
from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.golden import NamedFile, golden_arrays, write_golden
from pipeline.bundle.verify import difference, require_golden, verify
from pipeline.cli.lists import inspect_bundle
from pipeline.cli.tune import run as tune
from pipeline.config.target import Shape
from pipeline.core.digest import pretty_json, sha256_file
from pipeline.core.errors import EdgeError, IntegrityError, StageError, UsageError


def test_a_whole_bundle(bundle: Path) -> None:
    assert verify(bundle) == 0.0
    assert json.loads((bundle / "golden/golden.json").read_text())["inputs"] == [{"file": "input-0.npy", "name": "x"}]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("metadata.json", {"runtime": None}),
        ("metadata.json", {"runtime": {"engine": "x", "providers": [], "threads": -1, "session_config": {}}}),
        ("metadata.json", {"graphs": 5}),
        ("metadata.json", {"graphs": []}),
        ("metadata.json", {"graphs": [{"file": "../model.onnx", "inputs": [], "outputs": []}]}),
        ("metadata.json", {"scheme": {"name": "x", "weights": 5}}),
        ("golden/golden.json", {"samples": 10**9}),
        ("golden/golden.json", {"samples": -1}),
        ("golden/golden.json", {"samples": 3}),
        ("golden/golden.json", {"tolerance": 0}),
        ("golden/golden.json", {"inputs": [{"name": "x", "file": "../../../etc/passwd"}]}),
        ("golden/golden.json", {"inputs": [{"name": "x", "file": "/etc/passwd"}]}),
        ("golden/golden.json", {"inputs": [{"name": "z", "file": "input-0.npy"}]}),
        ("golden/golden.json", {"inputs": []}),
        ("golden/golden.json", {"outputs": [{"name": "z", "file": "output-0.npy"}]}),
        ("golden/golden.json", {"outputs": [{"name": "y", "file": "input-0.npy"}]}),
        ("golden/golden.json", {"outputs": [{"name": "y", "file": "output-9.npy"}]}),
    ],
)
def test_records_that_do_not_fit(bundle: Path, name: str, change: dict[str, Any]) -> None:
    rewritten(bundle, name, lambda data: data | change)
    with pytest.raises(EdgeError):
        verify(bundle)


def _npy(header: bytes, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x93NUMPY", b"PK\x03\x04" * 10, b"\x80\x04N.", _npy(b"("), _npy(b"{" * 9000), _npy(b"\xff")),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}") + bytes(8),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -2)}") + bytes(8),
        _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"\x80\x04N.",
        _npy(b"{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}") + bytes(8),
        _npy(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}") + bytes(8),
        _npy(b"{'descr': 'no', 'fortran_order': False, 'shape': (2,)}") + bytes(8),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", b"\x09\x00") + bytes(8),
        _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 7)}") + bytes(140),
    ],
)
@pytest.mark.parametrize("name", ["input-0.npy", "output-0.npy"])
def test_golden_files_that_are_no_arrays(bundle: Path, content: bytes, name: str) -> None:
    (bundle / "golden" / "0" / name).write_bytes(content)
    resealed(bundle)
    with pytest.raises((StageError, UsageError)):
        verify(bundle)


@pytest.mark.parametrize("content", [b"", b"\x08\x0a", b"not a model" * 9])
def test_a_model_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "model.onnx").write_bytes(content)
    resealed(bundle)
    with pytest.raises(IntegrityError, match="ONNX Runtime cannot run the golden samples of the bundle"):
        verify(bundle)


def _with(change: Callable[[onnx.ModelProto], None]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        model = onnx.ModelProto.FromString(content)
        change(model)
        return model.SerializeToString()  # type: ignore[no-any-return]

    return changed


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda _: b"not a model", "model.onnx of the bundle {} is no ONNX model: "),
        (lambda content: content[:40], "model.onnx of the bundle {} is no ONNX model: "),
        (lambda _: b"", "model.onnx of the bundle {} holds no graph."),
        (
            _with(lambda model: setattr(model.graph.initializer[0], "data_type", 99)),
            "The tensor 'w' of 'model.onnx' has the element type 99, which ONNX does not have.",
        ),
        (
            _with(lambda model: model.graph.initializer[0].dims.append(-5)),
            "The tensor 'w' of 'model.onnx' has the shape [2, 3, -5].",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused_by_every_command(
    bundle: Path, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    (bundle / "model.onnx").write_bytes(damage((bundle / "model.onnx").read_bytes()))
    resealed(bundle)
    commands: list[Callable[[], object]] = [
        lambda: inspect_bundle(bundle, Console()),
        lambda: check(bundle, store=tmp_path / "store"),
        lambda: tune(bundle, "phone", write=False),
    ]
    for command in commands:
        with pytest.raises(UsageError) as caught:
            command()
        assert caught.value.message.startswith(said.format(bundle))


@pytest.mark.parametrize("change", [[-1, 2], ["batch"], ["batch", 10**15]])
def test_a_shape_that_is_not_the_golden_samples(bundle: Path, change: list[int | str]) -> None:
    data = json.loads((bundle / "metadata.json").read_text())
    data["graphs"][0]["inputs"][0]["shape"] = change
    (bundle / "metadata.json").write_text(pretty_json(data))
    with pytest.raises(IntegrityError) as caught:
        example_feed(bundle, Shape())
    assert caught.value.message == (
        f"The bundle {bundle} has a golden input 'x' of [1, 2], where metadata.json says {change}."
    )


@pytest.mark.parametrize("place", ["none", "a/file", "a\0b", "n" * 300])
def test_what_is_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError):
        verify(tmp_path / place)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("actual", "expected", "share"),
    [
        ([1, 2], [1, 2], 0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([True], [True], 0),
        ([], [], 0),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 1e-9], [0.0, 0.0], INF),
        ([NAN, 1.0], [NAN, 1.0], 0),
        ([NAN, 1.0], [NAN, 2.0], 0.5),
        ([NAN, 1.0], [0.0, 1.0], INF),
        ([0.0, 1.0], [NAN, 1.0], INF),
        ([INF, 1.0], [INF, 2.0], 0.5),
        ([INF, 1.0], [-INF, 2.0], INF),
        ([NAN], [INF], INF),
        ([1.0], [1.0, 1.0], INF),
        (["a"], [1.0], INF),
    ],
)
def test_differences_worked_by_hand(actual: list[Any], expected: list[Any], share: float) -> None:
    assert difference(np.array(actual), np.array(expected)) == share


def test_an_answer_that_is_not_a_number_is_a_difference(bundle: Path) -> None:
    """The largest of some differences and NaN must not be one of the numbers."""
    np.save(bundle / "golden/1/output-0.npy", np.array([[NAN, 0, 0]], np.float32))
    resealed(bundle)
    with pytest.raises(StageError, match="gives other outputs here"):
        verify(bundle)


class Session:
    """Answers the golden samples of the small bundle, plus something."""

    def __init__(self, more: float) -> None:
        self._more = more

    def run(self, _: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feed["x"] @ WEIGHTS + np.float32(self._more)]


def test_a_second_form_of_the_graphs_counts_too(bundle: Path) -> None:
    assert require_golden(bundle, [Session(0), Session(0)], "It") == 0
    for more, said in ((1, "0.0833"), (NAN, "inf")):
        with pytest.raises(StageError, match=rf"^It gives other outputs .* differ by {said} of"):
            require_golden(bundle, [Session(0), Session(more)], "It")


def test_golden_arrays_by_name(tmp_path: Path) -> None:
    name = "../../a/b\x1b"
    write_golden(tmp_path, [({name: np.ones((1, 2))}, {"": np.zeros(3)})], [])
    assert list(golden_arrays(tmp_path, 0, [NamedFile(name=name, file="input-0.npy")])) == [name]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.npy")) == [
        *("golden/0/input-0.npy", "golden/0/output-0.npy")
    ]
    assert sha256_file(tmp_path / "golden/golden.json")
