"""Stage function: the folder that an app drops in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.bundle.golden import GOLDEN, RECORD, write_golden
from pipeline.bundle.manifest import SOURCE_EVALUATION, write_manifest
from pipeline.bundle.records import METADATA
from pipeline.compress import PREVIOUS_PASS
from pipeline.config.target import Runtime
from pipeline.core.digest import pretty_json
from pipeline.core.model_spec import ModelSpec
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json
from pipeline.data.encode import with_tokenizer
from pipeline.data.samples import DATASET, open_samples
from pipeline.graph.files import Graphs, graphs_in
from pipeline.runtime.behaviour import PROBE
from pipeline.runtime.session import make_session
from pipeline.source.model_config import CONFIG, PREPROCESSOR_FILES, TOKENIZER_FILES, VOCABULARY_FILES
from pipeline.tasks.registry import OUTPUTS

PREPROCESSING = "preprocessing.json"
_ROLES = ("float", "evaluation", SOURCE_EVALUATION, PROBE, "reference", "plan", "compare", "outside")
GOLDEN_SAMPLES = 4


def run(context: StageContext) -> StageMetadata:
    """Writes graphs, pre-processing data, `metadata.json`, `golden/` and `manifest.json`."""
    out = context.out
    folder = context.inputs["model"].path
    graphs = graphs_in(folder)
    for file in (file for graph in graphs for file in graph.files(folder)):
        shutil.copyfile(file, out / file.name)
    copied = _preprocessing_files(with_tokenizer(context.model, context.inputs), out)
    if PREVIOUS_PASS in context.inputs and (made := context.inputs[PREVIOUS_PASS].path / CONFIG).is_file():
        shutil.copyfile(made, out / CONFIG)  # in place of the source's, which tells other layers and sizes
    metadata = _metadata(context, graphs, copied)
    (out / METADATA).write_text(pretty_json(metadata), encoding="utf-8")
    runtime = Runtime.model_validate(context.config["runtime"])
    _golden(out, Graphs(out, graphs.specs), context.inputs["evaluation"].path, runtime)
    write_manifest(out, context.config["provenance"] | _digests(context))
    return {"files": len(list(out.rglob("*")))}


def _digests(context: StageContext) -> StageMetadata:
    """The keys under which `gate` finds this bundle's float reference in the store."""
    roles = [role for role in _ROLES if role in context.inputs]
    return {"store": {role: context.inputs[role].key for role in roles}}


def _preprocessing_files(spec: ModelSpec, out: Path) -> list[str]:
    """What an app needs to make inputs: the model's own files, and the recipe's image processing as
    `preprocessing.json`."""
    files = _copied(spec.tokenizer_folder, spec, out)
    if spec.preprocessing is not None:
        (out / PREPROCESSING).write_text(pretty_json(spec.preprocessing), encoding="utf-8")
        files.append(PREPROCESSING)
    return files


def _copied(folder: Path, spec: ModelSpec, out: Path) -> list[str]:
    """Tokenizer or processor files. A separate vocabulary only where there is no tokenizer.json with it. A
    factory's or ONNX file's folder may hold anything: only a tokenizer that was used is taken from it."""
    names = list(TOKENIZER_FILES if spec.data == "text" else PREPROCESSOR_FILES)
    if spec.data == "text" and not (folder / "tokenizer.json").is_file():
        names += VOCABULARY_FILES
    if spec.kind == "huggingface":
        names.insert(0, CONFIG)
    elif spec.data != "text" and not (spec.kind == "onnx" and spec.preprocessing is None):
        names = []
    found = [name for name in names if (folder / name).is_file()]
    for name in found:
        shutil.copyfile(folder / name, out / name)
    return found


def _metadata(context: StageContext, graphs: Graphs, files: list[str]) -> dict[str, Json]:
    config, spec = context.config, context.model
    runtime = Runtime.model_validate(config["runtime"])
    return {
        "model": spec.name,
        "task": spec.task,
        "scheme": config["scheme"],
        "graphs": [graph.model_dump(mode="json") for graph in graphs],
        "states": open_samples(context.inputs["evaluation"].path / "0").states,
        "max_length": config["max_length"] if spec.data == "text" else None,
        "labels": _labels(spec),
        "preprocessing": files,
        "golden": f"{GOLDEN}/{RECORD}",
        "runtime": {
            "engine": "onnxruntime",
            "providers": list(runtime.providers),
            "threads": runtime.threads,
            "session_config": runtime.session_entries,
        },
    }


def _labels(spec: ModelSpec) -> dict[str, str] | None:
    """Class names by index, where the model's config or the ONNX file has them."""
    return spec.labels if spec.labels and OUTPUTS.get(spec.family).names_classes else None


def _golden(out: Path, model: Graphs, evaluation: Path, runtime: Runtime) -> None:
    """A few evaluation samples, what this bundle answers, and the texts that they came from."""
    session = make_session(model, runtime)
    names = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]
    rows = open_samples(evaluation / "0", GOLDEN_SAMPLES).select(names)
    samples = [(row, dict(zip(outputs, session.run(None, row), strict=True))) for row in rows]
    texts = json.loads((evaluation / "0" / DATASET).read_text(encoding="utf-8"))["texts"]
    write_golden(out, samples, texts)
