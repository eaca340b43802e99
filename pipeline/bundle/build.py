"""Stage function: the folder that an app drops in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.bundle.client_files import write_client_files
from pipeline.bundle.contexts import compiled_session, put_contexts
from pipeline.bundle.genai import write_genai_config
from pipeline.bundle.golden import GOLDEN, RECORD, read_golden
from pipeline.bundle.golden_samples import GOLDEN_SAMPLES, make_golden, texts_of
from pipeline.bundle.layout import write_graphs
from pipeline.bundle.manifest import SOURCE_EVALUATION, write_manifest
from pipeline.bundle.ort_format import write_ort
from pipeline.bundle.readme import README, ordered_labels, readme
from pipeline.bundle.records import METADATA, read_metadata
from pipeline.bundle.tokenizer import write_tokenizer
from pipeline.compress import PREVIOUS_PASS
from pipeline.config.job import OPSETS
from pipeline.config.target import Layout, Runtime
from pipeline.core.digest import pretty_json
from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.report_types import QuantizationCheck
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Json, Scheme
from pipeline.data.encode import with_tokenizer
from pipeline.data.samples import open_samples
from pipeline.graph.files import MODEL, Graphs, file_of, graphs_in, load_model
from pipeline.runtime.behaviour import PROBE
from pipeline.runtime.releases import ONNX, Requirements, parse_release, requirements
from pipeline.source.decoders import GENERATION
from pipeline.source.model_config import CHAT_TEMPLATE, CONFIG, PREPROCESSOR_FILES, read_float_config
from pipeline.tasks.registry import OUTPUTS

PREPROCESSING, LABELS = "preprocessing.json", "labels.json"
_ROLES = (
    "float",
    "evaluation",
    SOURCE_EVALUATION,
    PROBE,
    "reference",
    "plan",
    "compare",
    "outside",
    "texts",
    "exact_match",
)


def run(context: StageContext) -> StageMetadata:
    """Writes graphs, pre-processing data, `metadata.json`, `golden/`, `README.md` and `manifest.json`."""
    out = context.out
    graphs = graphs_in(context.inputs["model"].path)
    layout, placed, notes = write_graphs(graphs, out, context.config["layout"], context.config["files"])
    copied = [*_preprocessing_files(context, out), *_client_files(context, out, layout)]
    socs = put_contexts(placed, context.inputs)
    needed = _requirements(context, graphs)
    metadata = _metadata(context, placed, copied) | {"layout": layout, "requires": needed.model_dump(mode="json")}
    metadata |= {"npu": list(socs)} if socs else {}
    (out / METADATA).write_text(pretty_json(metadata), encoding="utf-8", newline="\n")
    runtime = Runtime.model_validate(context.config["runtime"])
    on_npu = [compiled_session(placed, soc) for soc in socs[:1]]  # they compute alike
    make_golden(out, placed, _golden_samples(context), runtime, context.model, on_npu)
    if context.config["ort"]:
        write_ort(out, placed, runtime)
    _describe(out, context)
    write_manifest(out, context.config["provenance"] | _digests(context))
    return {"files": len(list(out.rglob("*"))), "notes": [*notes, _oldest_runtime(needed)]}


def _golden_samples(context: StageContext) -> Path:
    """The set that golden samples are made of; one of invented inputs is no evaluation set."""
    made = context.inputs.get("golden", context.inputs["evaluation"]).path
    return made / "0" if (made / "0").is_dir() else made


def _describe(out: Path, context: StageContext) -> None:
    """`labels.json` and `README.md`."""
    metadata = read_metadata(out)
    if labels := ordered_labels(metadata.labels):
        (out / LABELS).write_text(
            json.dumps(labels, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n"
        )
    compared = context.inputs.get("compare")
    check = QuantizationCheck.model_validate(compared.metadata) if compared else None
    target, licence = context.config["provenance"]["target"], context.config["licence"]
    text = readme(metadata, target, read_golden(out), context.model, licence, check)
    (out / README).write_text(text, encoding="utf-8", newline="\n")


def _requirements(context: StageContext, graphs: Graphs) -> Requirements:
    """What loads the graphs; StageError if that is newer than what the user's app has."""
    needed = requirements(map(load_model, graphs.files))
    asked = context.config["min_onnxruntime"]
    if asked is not None and needed.release > parse_release(asked):
        raise StageError(
            f"The bundle would need ONNX Runtime {needed.onnxruntime} ({needed.reason}), not {asked}.",
            f"Ask for --min-onnxruntime {needed.onnxruntime}, or for another scheme or model.",
        )
    return needed


def _oldest_runtime(needed: Requirements) -> str:
    note = f"Apps need ONNX Runtime {needed.onnxruntime} or newer to load the bundle ({needed.reason})."
    lowers = "opset" in needed.reason and needed.opsets.get(ONNX, 0) > min(OPSETS)
    return f"{note} --min-onnxruntime writes for older ones, in an older opset." if lowers else note


def _digests(context: StageContext) -> StageMetadata:
    """The keys under which `gate` finds this bundle's float reference in the store."""
    roles = [role for role in _ROLES if role in context.inputs]
    return {"store": {role: context.inputs[role].key for role in roles}}


def _preprocessing_files(context: StageContext, out: Path) -> list[str]:
    """What an app needs to make inputs: the model's own files, and the recipe's image processing as
    `preprocessing.json`."""
    spec = with_tokenizer(_as_traced(context), context.inputs)
    files = _config(spec, out)
    if spec.language is not None:
        runtime = Runtime.model_validate(context.config["runtime"])
        files.append(write_genai_config(out, file_of(MODEL), spec.language, runtime.threads, runtime.session_entries))
    if spec.data == "text" or spec.decoder is not None:
        evaluation = context.inputs["evaluation"].path / "0"
        rows = [*open_samples(evaluation, GOLDEN_SAMPLES)]
        longest = None if spec.language is not None else context.config["max_length"]
        files += write_tokenizer(out, spec, longest, texts_of(evaluation), rows)
    if spec.preprocessing is not None:
        (out / PREPROCESSING).write_text(pretty_json(spec.preprocessing), encoding="utf-8", newline="\n")
        files.append(PREPROCESSING)
    return files


def _as_traced(context: StageContext) -> ModelSpec:
    """The source as its passes left it when it was traced."""
    traced = context.inputs.get(PREVIOUS_PASS)
    return context.model.after_passes(traced.metadata) if traced else context.model


def _config(spec: ModelSpec, out: Path) -> list[str]:
    """The model's config, and its processor of images or sound. A factory's or ONNX file's folder may hold anything:
    only a processor that was used is taken from it."""
    names = [CONFIG] if spec.kind == "huggingface" else []
    if spec.data != "text" and (names or (spec.kind == "onnx" and spec.preprocessing is None)):
        names += PREPROCESSOR_FILES
    names += [GENERATION] if spec.decoder is not None or spec.language is not None else []
    names += [CHAT_TEMPLATE] if spec.language is not None else []
    found = [name for name in names if (spec.path / name).is_file()]
    for name in found:
        shutil.copyfile(spec.path / name, out / name)
    if spec.coded:
        (out / CONFIG).write_text(pretty_json(read_float_config(spec.path)), encoding="utf-8", newline="\n")
    return found


def _client_files(context: StageContext, out: Path, layout: Layout) -> list[str]:
    """What the layout's client reads beside the model's own files, of the model that passes have made."""
    if PREVIOUS_PASS in context.inputs and (made := context.inputs[PREVIOUS_PASS].path / CONFIG).is_file():
        shutil.copyfile(made, out / CONFIG)  # in place of the source's, which tells other layers and sizes
    scheme = Scheme.model_validate(context.config["scheme"])
    return write_client_files(out, layout, context.model, scheme, context.config["max_length"])


def _metadata(context: StageContext, graphs: Graphs, files: list[str]) -> dict[str, Json]:
    config, spec = context.config, _as_traced(context)
    runtime = Runtime.model_validate(config["runtime"])
    return {
        "model": spec.name,
        "task": spec.task,
        "scheme": config["scheme"],
        "graphs": [graph.model_dump(mode="json") for graph in graphs],
        "states": open_samples(context.inputs["evaluation"].path / "0").states,
        **_decoder(spec, config["max_length"], Scheme.model_validate(config["scheme"])),
        "max_length": _longest(spec, config["max_length"]),
        "ort": config["ort"],
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


def _longest(spec: ModelSpec, max_length: int) -> int | None:
    """The most tokens of a text."""
    if spec.language is not None:
        return spec.language.longest
    return max_length if spec.data == "text" else None


def _decoder(spec: ModelSpec, max_length: int, scheme: Scheme) -> dict[str, Json]:
    """Of a model with a decoder, how an app begins texts, fills them up and bounds them; of a language model, the sizes
    of its cache and the tokens that end texts."""
    if spec.language is not None:
        return {"language": spec.language.stored(scheme.cache).model_dump(mode="json")}
    if spec.decoder is None:
        return {}
    bounded = spec.decoder.model_copy(update={"longest": spec.decoder.most(max_length)})
    return {"decoder": bounded.model_dump(mode="json")}


def _labels(spec: ModelSpec) -> dict[str, str] | None:
    """Class names by index, where the model's config or the ONNX file has them."""
    return spec.labels if spec.labels and OUTPUTS.get(spec.family).names_classes else None
