"""Stage functions that turn raw data sets into model inputs, with the model's own tokenizer or image processing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import ModelSpec, given
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.core.types import Progress
from pipeline.core.untrusted import refused
from pipeline.data.audio import audio_rows
from pipeline.data.datasets import Dataset, load_evaluation, load_training, suited
from pipeline.data.image_preprocessing import LARGEST_SIDE, PREPROCESSOR, ImagePreprocessing, own_preprocessing
from pipeline.data.inputs import Known, as_tensors, fitted, random_rows, tensor_rows
from pipeline.data.labels import check_kind, number_labels, reduced
from pipeline.data.question_rows import cut_contexts, question_rows
from pipeline.data.raw import write_raw
from pipeline.data.readers.tables import Columns
from pipeline.data.samples import DATASET, Row, write_label_arrays, write_samples
from pipeline.data.sequences import load_steps, start, steps
from pipeline.data.targets import continued, cut_labels, generated, labelled, readable, unread, up_to
from pipeline.data.word_labels import word_rows
from pipeline.source.lengths import fixed_length
from pipeline.source.model_config import read_config
from pipeline.tasks.next_tokens import DECODER_INPUTS
from pipeline.tasks.registry import OUTPUTS

TOKENIZER = "tokenizer"
"""The role of the artifact with the tokenizer of a compressed model, where it is not the source's."""
_CHECK_TOKENIZER = "Check tokenizer.json and tokenizer_config.json, or give model inputs as .npz."
_SHOWN = 8  # raw texts, images and recordings kept beside the inputs, for the bundle's golden samples


def calibration(context: StageContext) -> StageMetadata:
    """Stage function: the calibration samples. Random tensors only if the user asked for them."""
    config = context.config
    if config["random"]:
        known, states = Known(**config.get("known", {})), config.get("states", {})
        rows = _random_rows(context.model, config["limit"], config["max_length"], known)
        if context.model.decoder is not None:
            rows = generated(rows, context.model, context.model.decoder.most(config["max_length"]))
        if context.model.language is not None:
            rows = (row for row, _ in continued(rows, context.model))
        if states:
            first = {name: start(name, context.model.inputs[name]) for name in states}
            rows = (row | first for row in rows)
        count = write_samples(context.out, rows, states, (config["limit"],) if states else ())
        return {"data": "random tensors", "samples": count, "random": True}
    exact, inputs = config.get("exact", False), context.model.inputs
    prepare = partial(_as_tensors, context.model)
    found = load_steps(config["spec"], config["limit"], exact, _columns(config), inputs, prepare)
    dataset = _numbered(found, context)
    count = _write(dataset, context.out, context)
    return {
        "data": dataset.name,
        "samples": count,
        "random": False,
        "digest": dataset.digest,
        **dataset.origin,
    }


def evaluation(context: StageContext) -> StageMetadata:
    """Stage function: one folder of held-out samples per evaluation set. A language model reads no more tokens of one
    than its size allows (see `LanguageHead`)."""
    most = int(context.model.head["tokens"]) if context.model.language is not None else None
    given = [dataset for spec in context.config["specs"] for dataset in load_evaluation(spec, _columns(context.config))]
    arrays = [_as_tensors(context.model, dataset) for dataset in given]
    datasets = [_numbered(steps(dataset, context.model.inputs), context) for dataset in arrays]
    notes = []
    for number, dataset in enumerate(datasets):
        folder = context.out / str(number)
        folder.mkdir()
        count = _write(dataset, folder, context, most)
        if context.config.get("raw"):
            write_raw(folder, given[number], count, _SHOWN)
        notes.append(_cut(dataset, context.model, context.config["max_length"], count))
    return {"sets": [dataset.name for dataset in datasets], "notes": [note for note in notes if note]}


def _cut(dataset: Dataset, model: ModelSpec, max_length: int, count: int) -> str:
    """What of a set is cut beyond the texts that a model reads; empty if nothing is. `count`: its samples."""
    if model.language is not None:
        return unread(dataset, count, int(model.head["tokens"]))
    said = model.decoder is not None and _says_texts(dataset)
    if not said and dataset.kind != "questions":
        return ""
    tokenizer = load_tokenizer(model.tokenizer_folder, model.trust_remote_code)
    if model.decoder is not None and said:
        return cut_labels(dataset, tokenizer, model.decoder.most(max_length))
    return cut_contexts(dataset, tokenizer, max_length)


def _says_texts(dataset: Dataset) -> bool:
    """Whether its labels are what a decoder should say."""
    return dataset.labels is not None and isinstance(dataset.labels[0], str)


def training(context: StageContext) -> StageMetadata:
    """Stage function: the samples of one or more data sets, one set after the other, to train on. They are labelled
    if all sets are."""
    config, model = context.config, with_tokenizer(context.model, context.inputs)
    sets = [_numbered(load_training(spec, config["limit"], _columns(config)), context) for spec in config["specs"]]
    aligned: list[Any] = []
    rows = (row for part in sets for row in model_rows(part, model, config["max_length"], aligned))
    total = sum(len(part.samples) for part in sets)
    count = write_samples(context.out, _counted(rows, total, context.progress))
    labels = [_labels(part, model.family) for part in sets]
    known = [label for part in labels for label in part or []]
    labelled = len(known) == count and not aligned
    record = {"name": ", ".join(part.name for part in sets), "labels": known if labelled else None, "samples": count}
    (context.out / DATASET).write_text(pretty_json(record), encoding="utf-8", newline="\n")
    return {"data": record["name"], "samples": count, "labelled": labelled}


def _columns(config: dict[str, Any]) -> Columns:
    return Columns.model_validate(config["columns"])


def _numbered(dataset: Dataset, context: StageContext) -> Dataset:
    """With class indices in place of names; what does not fit was refused when it was planned, if it is scored with."""
    if not OUTPUTS.get(context.model.family).numbers_labels:
        return reduced(dataset, context.model.path)
    return number_labels(dataset, context.config["classes"], strict=False)


def with_tokenizer(model: ModelSpec, inputs: Mapping[str, Artifact]) -> ModelSpec:
    """The model with the tokenizer that it has after the passes so far: one may have changed it."""
    return model.model_copy(update={"tokenizer": inputs[TOKENIZER].path}) if TOKENIZER in inputs else model


def _write(dataset: Dataset, folder: Path, context: StageContext, tokens: int | None = None) -> int:
    """Write the model's inputs, and `dataset.json`; returns how many. `tokens`: the most that are read."""
    spec = with_tokenizer(context.model, context.inputs)
    aligned: list[Any] = []
    rows = model_rows(dataset, spec, context.config["max_length"], aligned)
    rows = rows if tokens is None else up_to(rows, tokens)
    counted = _counted(rows, len(dataset.samples), context.progress)
    count = write_samples(folder, counted, dataset.states, dataset.sequences)
    embedded_pairs = dataset.pairs and OUTPUTS.get(spec.family).pairs_apart
    texts = _shown(dataset, spec) if dataset.kind == "text" and not dataset.pairs else []
    labels = aligned or _given_labels(dataset)
    if dataset.labels and isinstance(dataset.labels[0], np.ndarray):
        write_label_arrays(folder, dataset.labels)
    record = {
        "name": dataset.name,
        "pairs": embedded_pairs,
        "labels": labels,
        "samples": len(dataset.samples) if spec.language is None else count,
        "texts": list(texts),
        "pads": _pads(spec) if dataset.kind in ("text", "words", "questions") else {},
    }
    (folder / DATASET).write_text(pretty_json(record), encoding="utf-8", newline="\n")
    return count


def _shown(dataset: Dataset, spec: ModelSpec) -> Sequence[str]:
    """The texts that the first rows are made of."""
    if spec.language is None:
        return dataset.samples[:_SHOWN]
    tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
    return list(islice(readable(dataset.samples, tokenizer), _SHOWN))


def _given_labels(dataset: Dataset) -> list[Any] | None:
    """The labels of samples as they are; whether they can be scored, the judge says when the model's outputs are known.
    Labels of words belong to their tokens."""
    if dataset.labels is None or dataset.kind == "words" or isinstance(dataset.labels[0], np.ndarray):
        return None
    return [label if isinstance(label, (list, str)) else float(label) for label in dataset.labels]


def _labels(dataset: Dataset, family: str) -> list[Any] | None:
    """The labels that can be trained with: classes for classifiers, objects for detectors."""
    kind = OUTPUTS.get(family)
    if dataset.labels is None or kind.per_token or dataset.pairs != kind.pairs_apart:
        return None
    objects = isinstance(dataset.labels[0], list)
    if not isinstance(dataset.labels[0], (list, int, float)) or objects != ("objects" in kind.takes):
        return None
    return list(dataset.labels) if objects else [float(label) for label in dataset.labels]


def model_rows(dataset: Dataset, spec: ModelSpec, max_length: int, aligned: list[Any]) -> Iterator[Row]:
    """Model inputs; for labelled words, questions and texts that a decoder is to say, the labels of their tokens are
    added to `aligned`."""
    rows = _encoder_rows(dataset, spec, max_length, aligned)
    if spec.language is not None:
        return _aligned(continued(rows, spec), aligned)
    if spec.decoder is None:
        return rows
    most = spec.decoder.most(max_length)
    if dataset.labels is None or not _says_texts(dataset):
        return generated(rows, spec, most)
    tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
    return _aligned(labelled(rows, dataset.labels, tokenizer, spec.decoder, most), aligned)


def _aligned(pairs: Iterator[tuple[Row, list[int]]], aligned: list[Any]) -> Iterator[Row]:
    for row, ids in pairs:
        aligned.append(ids)
        yield row


def _encoder_rows(dataset: Dataset, spec: ModelSpec, max_length: int, aligned: list[Any]) -> Iterator[Row]:
    dataset = _as_tensors(spec, dataset)
    if dataset.kind == "tensor":
        return tensor_rows(dataset, spec.inputs)
    if dataset.kind == "questions" and OUTPUTS.get(spec.family).spans:
        tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
        questions = question_rows(dataset, tokenizer, max_length, aligned)
        return (_as_declared(row, spec, tokenizer, dataset.name) for row in questions)
    if dataset.kind == "words" and OUTPUTS.get(spec.family).per_token:
        tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
        words = word_rows(dataset, tokenizer, max_length, aligned)
        return (_as_declared(row, spec, tokenizer, dataset.name) for row in words)
    check_kind(dataset, spec.task, spec.data, OUTPUTS.get(spec.family))
    if dataset.kind == "image":
        return _image_rows(dataset, spec)
    if dataset.kind == "audio":
        return audio_rows(dataset, spec.path)
    return _text_rows(dataset, spec, max_length)


def _as_tensors(spec: ModelSpec, dataset: Dataset) -> Dataset:
    dataset = suited(dataset, OUTPUTS.get(spec.family))
    return as_tensors(dataset, spec.inputs, spec.preprocessing, spec.path)


def _text_rows(dataset: Dataset, spec: ModelSpec, max_length: int) -> Iterator[Row]:
    tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
    for sample in _sequences(dataset, spec.family):
        with refused(f"The tokenizer of {spec.name!r} cannot encode a text of {dataset.name!r}", _CHECK_TOKENIZER):
            encoded = tokenizer(*sample, truncation=True, max_length=max_length)
            row = {
                name: np.asarray([encoded[name]], dtype=np.int64)
                for name in tokenizer.model_input_names
                if name in encoded
            }
        if not row or not all(array.size for array in row.values()):
            raise UsageError(
                f"The tokenizer of {spec.name!r} makes nothing of a text of {dataset.name!r}.", _CHECK_TOKENIZER
            )
        yield _as_declared(row, spec, tokenizer, dataset.name)


def _as_declared(row: Row, spec: ModelSpec, tokenizer: Any, where: str) -> Row:
    """The row in the dtypes that a graph declares, and padded at its end if all its texts have one length."""
    length = spec.text_length or fixed_length(spec.inputs)
    if length is not None:
        if tokenizer.pad_token_id is None:
            raise UsageError(
                f"The inputs of {spec.name!r} have {length} tokens, and its tokenizer has no padding token.",
                'Name one as "pad_token" in tokenizer_config.json, or export the graph with a dynamic sequence axis.',
            )
        fill = {"input_ids": tokenizer.pad_token_id}
        row = {
            name: np.pad(array, ((0, 0), (0, length - array.shape[1])), constant_values=fill.get(name, 0))
            for name, array in row.items()
        }
    return fitted(row, spec.inputs, where)


def _sequences(dataset: Dataset, family: str) -> Iterator[tuple[str, ...]]:
    """What goes through the tokenizer: a text, a pair for a pair classifier, or first all left and then all right
    sides of pairs whose embeddings will be compared."""
    if not dataset.pairs:
        yield from ((text,) for text in dataset.samples)
    elif OUTPUTS.get(family).pairs_apart:
        for side in (0, 1):
            yield from ((pair[side],) for pair in dataset.samples)
    else:
        yield from dataset.samples


def _pads(spec: ModelSpec) -> dict[str, int]:
    """What fills up shorter sequences of a batch, by input name; 0 fills the others."""
    tokenizer = load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code)
    known = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    pads = {name: value for name, value in known.items() if value and name in tokenizer.model_input_names}
    return pads | ({DECODER_INPUTS: spec.decoder.pad} if spec.decoder is not None and spec.decoder.pad else {})


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The folder's tokenizer; UsageError if transformers can load none."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds to import, and images do not need it

    with refused(
        f"The folder {folder.name!r} has no tokenizer that transformers can load",
        "Add its tokenizer.json, or give the model as a factory (file.py:name) and its inputs as .npz.",
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        names = tokenizer.model_input_names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError(f"tokenizer_config.json of {folder.name!r}: model_input_names is {names!r}.")
        return tokenizer


def tokenizer_inputs(spec: ModelSpec) -> list[str]:
    """Names of the inputs that the folder's tokenizer makes; UsageError if it has none."""
    return list(load_tokenizer(spec.tokenizer_folder, spec.trust_remote_code).model_input_names)


def _image_rows(dataset: Dataset, spec: ModelSpec) -> Iterator[Row]:
    prepare = image_preprocessing(spec)
    name = next(iter(given(spec.inputs)), "pixel_values")
    placed = OUTPUTS.get(spec.family).places and dataset.labels is not None
    if placed and (prepare.crop is not None or not isinstance(prepare.resize, tuple)):
        raise UsageError(
            "The model's preprocessor_config.json crops its images or keeps their shape.",
            'Labels of places need the whole image at one size: "size": {"height": ..., "width": ...}, no crop.',
        )
    for image in dataset.samples:
        yield fitted({name: prepare(image)[None]}, spec.inputs, dataset.name)


def image_preprocessing(spec: ModelSpec) -> ImagePreprocessing:
    """The recipe's image processing, or else the one of the model's own folder."""
    if spec.preprocessing is not None:
        return ImagePreprocessing.model_validate(spec.preprocessing)
    return own_preprocessing(spec.name, spec.kind, spec.path)


def image_size(spec: ModelSpec) -> tuple[int, int] | None:
    """(height, width) of a Hugging Face model's images: what its processor makes, or where the folder has none, what
    config.json says; None if neither tells."""
    folder = spec.path
    if spec.preprocessing is not None or (folder / PREPROCESSOR).is_file():
        return image_preprocessing(spec).size
    size = read_config(folder).get("image_size")
    if size is None:
        return None
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
        raise UsageError(f"config.json of {folder.name!r}: image_size is {size!r}, not a height and a width.")
    return sides[0], sides[1]


def _random_rows(spec: ModelSpec, count: int, max_length: int, known: Known) -> Iterator[Row]:
    """Uniform token ids or standard normal pixels: they say nothing about real activations."""
    if spec.inputs:
        yield from random_rows(spec.inputs, count, max_length, known=known)
        return
    if spec.data == "audio":
        raise UsageError("There are no random recordings.", "Give real ones with --calibration-data.")
    config = read_config(spec.path)
    generator = np.random.default_rng(0)
    for _ in range(count):
        if spec.data == "image":
            shape = (1, config.get("num_channels", 3), *(image_size(spec) or (224, 224)))
            yield {"pixel_values": generator.standard_normal(shape, dtype=np.float32)}
        else:
            words = config.get("text_config", config)
            if not isinstance(words, dict) or "vocab_size" not in words:
                raise UsageError(f"config.json of {spec.name!r} has no vocab_size to draw tokens from.")
            ids = generator.integers(0, words["vocab_size"], (1, max_length), dtype=np.int64)
            yield {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }


def _counted(rows: Iterator[Row], total: int, progress: Progress) -> Iterator[Row]:
    for done, row in enumerate(rows, start=1):
        progress(done, max(total, done))
        yield row
