"""Every bit of a bundle and of a stored artifact is accounted for, and `verify` raises only its own errors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from pipeline.api import check
from pipeline.bundle.example_feed import example_feed
from pipeline.bundle.golden import NamedFile, golden_arrays, write_golden
from pipeline.bundle.manifest import read_manifest, write_manifest
from pipeline.bundle.records import Engine, Metadata
from pipeline.bundle.verify import difference, verify
from pipeline.cli.lists import inspect_bundle
from pipeline.cli.tune import run as tune
from pipeline.config.target import Shape
from pipeline.core.artifact import open_artifact, seal
from pipeline.core.digest import pretty_json, sha256_file, sha256_json
from pipeline.core.errors import EdgeError, IntegrityError, StageError, UsageError
from pipeline.core.types import Scheme
from pipeline.graph.files import graphs_in, save_graphs

PROVENANCE = {
    **{"model": "m", "model_digest": "d", "target": "phone", "recipe": "fp32"},
    "store": {"float": "0" * 64, "evaluation": "1" * 64},
}
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
SAMPLES = [np.array([[1, 2]], np.float32), np.array([[3, -4]], np.float32)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """y = x @ weights, with two golden samples."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    save_graphs(folder, {"model": ir.from_proto(model)})
    metadata = Metadata(
        model="m",
        task="text-classification",
        scheme=Scheme(name="fp32"),
        graphs=graphs_in(folder),
        max_length=None,
        labels=None,
        preprocessing=(),
        golden="golden/golden.json",
        runtime=Engine(engine="onnxruntime", providers=("CPUExecutionProvider",), threads=1, session_config={}),
    )
    (folder / "graphs.json").unlink()
    (folder / "metadata.json").write_text(pretty_json(metadata.model_dump(mode="json")))
    write_golden(folder, [({"x": x}, {"y": x @ WEIGHTS}) for x in SAMPLES], ["a", "b"])
    write_manifest(folder, PROVENANCE)
    return folder


def rewritten(bundle: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of the bundle, and the manifest with it, as somebody who wants it to pass."""
    data = json.loads((bundle / name).read_text())
    (bundle / name).write_text(json.dumps(change(data)))
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)


def test_a_whole_bundle(bundle: Path) -> None:
    assert verify(bundle) == 0.0
    assert json.loads((bundle / "golden/golden.json").read_text())["inputs"] == [{"file": "input-0.npy", "name": "x"}]


def sweep(folder: Path, error: type[Exception], read: Callable[[], object]) -> None:
    """Flip bits of all files, of each a seeded choice over its whole length, and most of the record."""
    generator = np.random.default_rng(0)
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        content = path.read_bytes()
        most = 500 if path.name in ("manifest.json", "artifact.json") else 30
        for bit in generator.permutation(8 * len(content))[:most]:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(error):
                read()
        path.write_bytes(content)
    read()


def test_any_flipped_bit_of_a_bundle_is_noticed(bundle: Path) -> None:
    sweep(bundle, UsageError, lambda: read_manifest(bundle))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    identity = {"stage": "trace", "config": {"opset": 23, "names": ["a", "b"]}, "inputs": {}, "version": 1}
    key = sha256_json(identity)
    folder = tmp_path / key
    (folder / "sub").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(bytes(range(50)))
    (folder / "sub" / "empty").touch()
    seal(folder, "trace", key, identity, {"left": [{"weight": "w"}], "share": 0.1, "by_class": {1: "one", 10: "ten"}})
    return folder


def test_any_flipped_bit_of_a_stored_artifact_is_noticed(artifact: Path) -> None:
    assert open_artifact(artifact).facts["by_class"] == {"1": "one", "10": "ten"}
    sweep(artifact, IntegrityError, lambda: open_artifact(artifact))


def test_an_entry_under_the_key_of_another_is_noticed(artifact: Path) -> None:
    other = artifact.parent / ("0" * 64)
    shutil.copytree(artifact, other)
    with pytest.raises(IntegrityError, match="is not the one of stage trace under this key"):
        open_artifact(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"more": 1},
        lambda record: record | {"stage": "other"},
        lambda record: record | {"facts": {}},
        lambda record: record | {"identity": 1},
        lambda record: record | {"files": []},
        lambda record: [record],
        lambda _: None,
        lambda record: record | {"digest": None},
    ],
)
def test_a_changed_record_is_noticed(artifact: Path, change: Callable[[Any], Any]) -> None:
    record = json.loads((artifact / "artifact.json").read_text())
    (artifact / "artifact.json").write_text(pretty_json(change(record)))
    with pytest.raises(IntegrityError):
        open_artifact(artifact)


ADDED: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a link": lambda path: path.symlink_to("model.onnx"),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "a FIFO": os.mkfifo,
    "an empty folder": Path.mkdir,
    "a sparse file": lambda path: path.touch() or os.truncate(path, 10**11),
}


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("name", ["new", "golden/new", "artifact.json", "golden/artifact.json"])
def test_anything_added_to_a_bundle_is_noticed(bundle: Path, added: str, name: str) -> None:
    ADDED[added](bundle / name)
    with pytest.raises(UsageError, match=r"is damaged: .*(was added|is neither a file|is an empty folder)"):
        verify(bundle)


@pytest.mark.parametrize("added", ADDED)
def test_anything_added_to_an_artifact_is_noticed(artifact: Path, added: str) -> None:
    ADDED[added](artifact / "sub" / "artifact.json")
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        open_artifact(artifact)


@pytest.mark.parametrize(
    "name", ["model.onnx", "manifest.json", "golden/golden.json", "golden/0/input-0.npy", "golden"]
)
def test_a_file_that_became_something_else(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "moved")
    (bundle / name).symlink_to(tmp_path / "moved")
    with pytest.raises(UsageError):
        verify(bundle)
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(UsageError):
        verify(bundle)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"NaN", b"[" * 100_000, b'{"format": 3}', b'{"format": "2"}'),
        b'{"format": 3, "format": 3}',
        b'{"format": 1e999}',
        b"1" * 10_000,
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", "metadata.json", "golden/golden.json"])
def test_json_of_any_kind(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    with pytest.raises(UsageError):
        verify(bundle)
    if name != "manifest.json":
        (bundle / "manifest.json").unlink()
        write_manifest(bundle, PROVENANCE)
        with pytest.raises(UsageError, match=name):
            verify(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"/x": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"\ud800": {"sha256": "0" * 64, "bytes": 1}}},
        {"files": {"x": {"sha256": "0" * 64, "bytes": -1}}},
        {"files": {"x": {"sha256": "../../x", "bytes": 1}}},
        {"files": [], "more": 1},
        {"provenance": PROVENANCE | {"store": {"float": "../../../etc"}}},
        {"provenance": PROVENANCE | {"store": {"float": 5}}},
        {"provenance": PROVENANCE | {"model": "other"}},
        {"provenance": None},
        {"digest": "0" * 64},
        {"digest": None},
    ],
)
def test_a_changed_manifest_is_noticed(bundle: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(UsageError):
        read_manifest(bundle)


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
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
    with pytest.raises((StageError, UsageError)):
        verify(bundle)


@pytest.mark.parametrize("content", [b"", b"\x08\x0a", b"not a model" * 9])
def test_a_model_that_is_none(bundle: Path, content: bytes) -> None:
    (bundle / "model.onnx").write_bytes(content)
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
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
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
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


@pytest.mark.parametrize("inside", ["", "new", "golden/../new"])
def test_reports_do_not_go_into_the_bundle(bundle: Path, inside: str) -> None:
    before = sorted(bundle.rglob("*"))
    with pytest.raises(UsageError, match=r"lies inside the bundle|which edge did not write"):
        check(bundle, output=bundle / inside)
    assert sorted(bundle.rglob("*")) == before


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
    (bundle / "manifest.json").unlink()
    write_manifest(bundle, PROVENANCE)
    with pytest.raises(StageError, match="gives other outputs here"):
        verify(bundle)


def test_golden_arrays_by_name(tmp_path: Path) -> None:
    name = "../../a/b\x1b"
    write_golden(tmp_path, [({name: np.ones((1, 2))}, {"": np.zeros(3)})], [])
    assert list(golden_arrays(tmp_path, 0, [NamedFile(name=name, file="input-0.npy")])) == [name]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.npy")) == [
        *("golden/0/input-0.npy", "golden/0/output-0.npy")
    ]
    assert sha256_file(tmp_path / "golden/golden.json")
