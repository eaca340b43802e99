"""Nothing that is named, on the command line or inside a model, leads to writing anywhere but into the output."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import verify
from pipeline.bundle.golden import golden_arrays, read_golden
from pipeline.cli import main as cli

Main = Callable[..., tuple[int, str]]


def contents(folder: Path) -> dict[str, str]:
    """What stands in a folder: kinds, sizes and times of everything that is no folder."""
    entries = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        str(path.relative_to(folder)): f"{stat.st_mode} {stat.st_size} {stat.st_mtime_ns}"
        for path, stat in entries.items()
        if not path.is_dir()
    }


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's name may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _mine(path: Path) -> None:
    path.mkdir()
    (path / "report.json").write_text('{"title": "my own report"}')


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "The output out is a FIFO."),
    "a socket": (_socket, "The output out is a socket."),
    "a file": (lambda path: path.write_text("mine"), "The output out is a file."),
    "a link": (lambda path: path.symlink_to(path.parent / "targets"), "The output out is a link."),
    "a broken link": (lambda path: path.symlink_to("nowhere"), "The output out is a link."),
    "somebody's folder": (_mine, "The output folder out holds 'report.json', which edge did not write."),
}


@pytest.fixture
def main(workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Main]:
    """The command line in this process: (exit code, standard error), for what ends before any work."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("EDGE_STORE", "store")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda *arguments: (cli.main(list(arguments)), capfd.readouterr().err)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("place", PLACES)
def test_an_output_that_is_not_ours_is_refused_before_any_work(main: Main, tiny, workspace, place) -> None:
    make, message = PLACES[place]
    make(workspace / "out")
    before = contents(workspace)
    for command in (
        ["export", *tiny],
        ["export", *tiny, "--dry-run"],
        ["compare", *tiny],
        ["check", "bundle", "--output", "out"],
    ):
        code, errors = main(*command)
        assert (code, f"error: {message}" in errors.splitlines()) == (2, True), (command, errors)
    assert contents(workspace) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", ""], "Invalid value for '-o' / '--output': it is empty."),
        (["--store", ""], "Invalid value for '--store' (env var: 'EDGE_STORE'): it is empty."),
        (["--baseline", ""], "Invalid value for '--baseline': it is empty."),
        (["-o", "."], "The output . is the working folder or holds it"),
        (["-o", ".."], "The output .. is the working folder or holds it"),
        (["-o", "/dev/null"], "The output /dev/null is a device."),
        (["-o", "/proc"], "The output "),
        (["-o", "calibration.txt/below"], "calibration.txt, which is no folder."),
        (["-o", "n" * 300], "... is too long: a name may have 220 bytes, a path 3900."),
        (["--store", "calibration.txt"], "The store calibration.txt is a file."),
        (["--store", "calibration.txt/below"], "calibration.txt, which is no folder."),
        (["--store", "/dev/null"], "The store /dev/null is a device."),
    ],
)
def test_places_that_cannot_be(main: Main, tiny, workspace, arguments, message) -> None:
    before = contents(workspace)
    for dry in ([], ["--dry-run"]):
        code, errors = main("export", *tiny, *arguments, *dry)
        assert code == 2, errors
        assert message in " ".join(errors.split())
    assert contents(workspace) == before


def test_an_empty_variable_is_no_store(main: Main, tiny, workspace, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert main("export", *tiny, "--dry-run") == (0, "")
    assert sorted(path.name for path in (workspace / "cache").iterdir()) == ["edge-pipeline"]


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "..", "a\\u0000b", "\\u001b[2J", "", "x/y"])
def test_a_targets_name_is_no_path(main: Main, tiny, workspace, name) -> None:
    path = workspace / "targets" / "lenient.toml"
    path.write_text(f'name = "{name}"\n' + path.read_text())
    code, errors = main("export", *tiny[:4], "--dry-run")
    assert code == 2
    assert "name: a name has 1 to 100 bytes that can be shown" in errors


def _model(path: Path, inputs: list[str], output: str) -> None:
    """`output` = (the sum of all inputs) x weights; float32 [batch, 8] -> [batch, 4]."""
    weights = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Sum", inputs, ["total"]),
        helper.make_node("MatMul", ["total", "weights"], [output], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


NAMES = ["a/b", "../../escaped", "/escaped", "file", "names", "x\n[red]", "n" * 200]
OUTPUT = "../out/of/it"


def test_names_inside_a_model_are_no_paths(edge, workspace) -> None:
    inputs, output = NAMES, OUTPUT
    _model(workspace / "model.onnx", inputs, output)
    values = np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32)
    _save(workspace / "x.npz", {name: values + place for place, name in enumerate(inputs)})
    flags = [*("--model", "model.onnx", "--task", "text-classification", "--target", "lenient")]
    data = ["--eval-data", "x.npz", "--calibration-data", "x.npz", "--calibration-samples", "8"]
    done = edge("export", *flags, *data, "-o", "out", "--recipe", "fp32")
    assert done.returncode == 0, done.stderr
    bundle = workspace / "out" / "bundle"
    assert verify(bundle) == 0.0
    golden = read_golden(bundle)
    assert [entry.name for entry in golden.inputs] == inputs
    assert [entry.name for entry in golden.outputs] == [output]
    session = ort.InferenceSession(bundle / "model.onnx")
    answer = session.run(None, golden_arrays(bundle, 0, golden.inputs))[0]
    np.testing.assert_allclose(golden_arrays(bundle, 0, golden.outputs)[output], answer)
    assert sorted(path.name for path in (bundle / "golden" / "0").iterdir()) == [
        *(f"input-{place}.npy" for place in range(len(inputs))),
        "output-0.npy",
    ]
    assert json.loads((bundle / "metadata.json").read_text())["golden"] == "golden/golden.json"
    assert not [path for path in workspace.parent.rglob("escaped*") if workspace not in path.parents]
    assert edge("check", "out/bundle", "--target", "lenient").returncode == 0


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As numpy.savez, which takes no name like `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())


def test_a_check_writes_its_reports_where_it_is_told(edge, tiny, exported, workspace) -> None:
    for folder in ("new/below", "out"):
        done = edge("check", "out/bundle", "--target", "lenient", "-o", folder)
        assert done.returncode == 0, done.stderr
        assert {path.name for path in (workspace / folder).iterdir()} - {"bundle", "reference"} == {
            *("junit.xml", "report.html", "report.json")
        }
    assert edge("export", *tiny, "--dry-run").returncode == 0


def test_a_link_to_a_target_is_not_written_through(main: Main, workspace) -> None:
    (workspace / "elsewhere.toml").write_text((workspace / "targets/lenient.toml").read_text())
    (workspace / "targets/other.toml").symlink_to(workspace / "elsewhere.toml")
    code, errors = main("tune", "--target", "other", "--write", "-o", "out")
    assert code == 2
    assert "other.toml is a link; --write changes plain files only." in " ".join(errors.split())


def test_clean_touches_no_folder_that_is_no_store(main: Main, workspace) -> None:
    before = contents(workspace)
    code, errors = main("clean", "--store", ".")
    assert (code, errors.splitlines()[0]) == (2, "error: . is no store: it has no folder objects/.")
    assert main("clean", "--store", "none") == (0, "")
    assert contents(workspace) == before
