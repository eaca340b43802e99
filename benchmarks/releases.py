"""What each release of ONNX Runtime loads, held against the table in `pipeline/runtime/releases.py`.

    python -m benchmarks.releases --into FOLDER                 # installs the wheels from PyPI: about 1 GB
    python -m benchmarks.releases --into FOLDER 1.33.0          # one that is not in the table yet

Each release runs in a process of its own, which tells the newest opset and format version of a one-node graph that it
loads, and its CPU kernels. A kernel counts if the types that it takes are among those of the operator's definition.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from pipeline.runtime.releases import CONTRIBUTED, FORMATS, LATE, OLDEST, OPSETS, Release, parse_release, spell

RELEASES = (
    *("1.16.3", "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4", "1.25.1", "1.26.0"),
    *("1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0"),
)
_NUMPY_1 = (1, 18)
"""The last release that was built for numpy 1."""
_ASK = """
import json, sys
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state
ort.set_default_logger_severity(4)
refusals = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
def loads(path):
    try:
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    except refusals:
        return False
    return True
kernels = [[k.domain, k.op_name, list(k.version_range), {n: list(t) for n, t in k.type_constraints.items()}]
           for k in state.get_all_opkernel_def() if k.provider == "CPUExecutionProvider"]
print(json.dumps({"loads": [path for path in sys.argv[1:] if loads(path)], "kernels": kernels}))
"""


def install(version: str, into: Path) -> Path:
    """The folder with the release's wheel, and with a numpy that it can import."""
    folder = into / version
    if not folder.is_dir():
        numpy = ["numpy<2"] if parse_release(version) <= _NUMPY_1 else []
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, f"onnxruntime=={version}", *numpy], check=True)
    return folder


def measure(folder: Path, graphs: dict[str, Path]) -> dict[str, Any]:
    """What the release in `folder` says: the names of the graphs that it loads, and its kernels."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", _ASK, *map(str, graphs.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return {
        "loads": {name for name, path in graphs.items() if str(path) in answer["loads"]},
        "kernels": answer["kernels"],
    }


def probes(folder: Path) -> dict[str, Path]:
    """Graphs of one node, in each opset and in each format version."""
    cases = {f"opset {opset}": (opset, 8) for opset in range(17, onnx.defs.onnx_opset_version() + 2)}
    cases |= {f"format {version}": (17, version) for version in range(8, 16)}
    return {name: _probe(folder / f"{name.replace(' ', '-')}.onnx", *case) for name, case in cases.items()}


def _probe(path: Path, opset: int, ir_version: int) -> Path:
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [taken], [given])
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path


def differences(found: dict[Release, dict[str, Any]]) -> Iterator[str]:
    """Where the table says another thing than what was measured."""
    for kind, table in (("opset", OPSETS), ("format", FORMATS)):
        for release, measured in found.items():
            newest = max(int(name.split()[1]) for name in measured["loads"] if name.startswith(kind))
            said = max(newest for first, newest in table.items() if first <= release)
            if newest != said:
                yield f"{spell(release)} loads {kind} {newest}, the table says {said}"
    for (name, opset), release in _late(found).items():
        if LATE.get((name, opset), OLDEST) != release:
            yield f"{name} of opset {opset} runs from {spell(release)} on"
    contributed = {name: release for name, release in _contributed(found).items() if release > min(found)}
    for name in sorted(contributed.keys() | {name for name, release in CONTRIBUTED.items() if release in found}):
        if contributed.get(name) != CONTRIBUTED.get(name) and CONTRIBUTED.get(name) != min(found):
            yield f"{name} runs from {contributed.get(name)} on, the table says {CONTRIBUTED.get(name)}"


def _late(found: dict[Release, dict[str, Any]]) -> dict[tuple[str, int], Release]:
    """Operators that the first release with their opset does not run -> the first that does."""
    late = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or schema.deprecated:
            continue
        first = next((release for release, measured in found.items() if _runs(measured["kernels"], schema)), None)
        opset = next((r for r, m in found.items() if f"opset {max(schema.since_version, 17)}" in m["loads"]), None)
        if first is not None and opset is not None and first > opset:
            late[schema.name, schema.since_version] = first
    return late


def _runs(kernels: list[list[Any]], schema: onnx.defs.OpSchema) -> bool:
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
    return any(
        not domain
        and name == schema.name
        and first <= schema.since_version <= last
        and all(set(types) & allowed.get(parameter, set(types)) for parameter, types in taken.items())
        for domain, name, (first, last), taken in kernels
    )


def _contributed(found: dict[Release, dict[str, Any]]) -> dict[str, Release]:
    """Operator of com.microsoft -> the first release with a kernel."""
    first: dict[str, Release] = {}
    for release, measured in found.items():
        for domain, name, *_ in measured["kernels"]:
            if domain == "com.microsoft":
                first.setdefault(name, release)
    return first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("releases", nargs="*", default=RELEASES)
    parser.add_argument("--into", type=Path, required=True, help="folder for the wheels")
    arguments = parser.parse_args()
    graphs = probes(arguments.into)
    found = {parse_release(one): measure(install(one, arguments.into), graphs) for one in arguments.releases}
    lines = [*differences(found)]
    print(*lines or [f"The table holds for {len(found)} releases."], sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
