"""Stage functions that turn raw data sets into model inputs, with the model's own tokenizer or image processing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.artifact import Artifact
from pipeline.core.digest import pretty_json
from pipeline.core.errors import UsageError
from pipeline.core.stage import StageContext
from pipeline.core.types import Json, Progress
from pipeline.core.untrusted import refused
from pipeline.source.audio import audio_rows
from pipeline.source.datasets import Dataset, load_calibration, load_evaluation, load_training
from pipeline.source.images import LARGEST_SIDE, PREPROCESSOR, ImagePreprocessing, unprepared
from pipeline.source.inputs import as_tensors, fitted, fixed_length, random_rows, tensor_rows
from pipeline.source.labels import check_kind, number_labels
from pipeline.source.model_config import read_config
from pipeline.source.samples import DATASET, Row, write_samples
from pipeline.source.tables import Columns
from pipeline.source.words import word_rows

PREPROCESSOR_FILES = ("preprocessor_config.json",)
SENTENCE_ENCODER_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
TOKENIZER = "tokenizer"
"""The role of the artifact with the tokenizer of a compressed model, where it is not the source's."""
_CHECK_TOKENIZER = "Check tokenizer.json and tokenizer_config.json, or give model inputs as .npz."
_SHOWN = 8  # raw texts kept beside the inputs, for the bundle's golden samples


def calibration(context: StageContext) -> dict[str, Json]:
    """Stage function: the calibration samples. Random tensors only if the user asked for them."""
    config = context.config
    if config["random"]:
        count = write_samples(context.out, _random_rows(config["source"], config["limit"], config["max_length"]))
        return {"data": "random tensors", "samples": count, "random": True}
    dataset = _numbered(load_calibration(config["spec"], config["limit"], columns=_columns(config)), config)
    count = _write(dataset, context.out, _tokenized(context), context.progress)
    return {
        "data": dataset.name,
        "samples": count,
        "random": False,
        "digest": dataset.digest,
        **dataset.origin,
    }


def evaluation(context: StageContext) -> dict[str, Json]:
    """Stage function: one folder of held-out samples per evaluation set."""
    datasets = [
        dataset for spec in context.config["specs"] for dataset in load_evaluation(spec, _columns(context.config))
    ]
    datasets = [_numbered(dataset, context.config) for dataset in datasets]
    for number, dataset in enumerate(datasets):
        folder = context.out / str(number)
        folder.mkdir()
        _write(dataset, folder, _tokenized(context), context.progress)
    return {"sets": [dataset.name for dataset in datasets]}


def training(context: StageContext) -> dict[str, Json]:
    """Stage function: the samples of one or more data sets, one set after the other, to train on. They are labelled
    if all sets are."""
    config = context.config
    source = with_tokenizer(config["source"], context.inputs)
    sets = [_numbered(load_training(spec, config["limit"], _columns(config)), config) for spec in config["specs"]]
    aligned: list[list[int]] = []
    rows = (row for part in sets for row in _rows(part, source, config["max_length"], aligned))
    total = sum(len(part.samples) for part in sets)
    count = write_samples(context.out, _counted(rows, total, context.progress))
    labels = [_labels(part, config["source"]["family"]) for part in sets]
    known = [label for part in labels for label in part or []]
    labelled = len(known) == count and not aligned
    record = {"name": ", ".join(part.name for part in sets), "labels": known if labelled else None, "samples": count}
    (context.out / DATASET).write_text(pretty_json(record), encoding="utf-8")
    return {"data": record["name"], "samples": count, "labelled": labelled}


def _columns(config: dict[str, Any]) -> Columns:
    return Columns.model_validate(config["columns"])


def _numbered(dataset: Dataset, config: dict[str, Any]) -> Dataset:
    """With class indices in place of names; what does not fit was refused when it was planned, if it is scored with."""
    return number_labels(dataset, config["classes"], strict=False)


def _tokenized(context: StageContext) -> dict[str, Any]:
    return {**context.config, "source": with_tokenizer(context.config["source"], context.inputs)}


def with_tokenizer(source: dict[str, Any], inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """The source with the tokenizer of the model that is compressed so far: a pass may have changed it."""
    place = inputs[TOKENIZER].path if TOKENIZER in inputs else source["path"]
    return {**source, TOKENIZER: str(place)}


def _write(dataset: Dataset, folder: Path, config: dict[str, Any], progress: Progress) -> int:
    source = config["source"]
    aligned: list[list[int]] = []
    rows = _rows(dataset, source, config["max_length"], aligned)
    count = write_samples(folder, _counted(rows, len(dataset.samples), progress))
    embedded_pairs = dataset.pairs and source["family"] == "embedding"
    texts = dataset.samples[:_SHOWN] if dataset.kind == "text" and not dataset.pairs else []
    labels = aligned or _given_labels(dataset)
    record = {
        "name": dataset.name,
        "pairs": embedded_pairs,
        "labels": labels,
        "samples": len(dataset.samples),
        "texts": list(texts),
        "pads": _pads(source) if dataset.kind in ("text", "words") else {},
    }
    (folder / DATASET).write_text(pretty_json(record), encoding="utf-8")
    return count


def _given_labels(dataset: Dataset) -> list[Any] | None:
    """The labels of samples as they are; whether they can be scored, the judge says when the model's outputs are known.
    Labels of words belong to their tokens."""
    if dataset.labels is None or dataset.kind == "words":
        return None
    return [list(label) if isinstance(label, list) else float(label) for label in dataset.labels]


def _labels(dataset: Dataset, family: str) -> list[Any] | None:
    """The labels that can be trained with: classes for classifiers, objects for detectors."""
    if dataset.labels is None or family == "tokens" or dataset.pairs != (family == "embedding"):
        return None
    objects = isinstance(dataset.labels[0], list)
    if objects != (family == "detector"):
        return None
    return list(dataset.labels) if objects else [float(label) for label in dataset.labels]


def _rows(dataset: Dataset, source: dict[str, Any], max_length: int, aligned: list[list[int]]) -> Iterator[Row]:
    """Model inputs; for labelled words, the labels of their tokens are added to `aligned`."""
    dataset = as_tensors(dataset, source["inputs"], source["preprocessing"])
    if dataset.kind == "tensor":
        return tensor_rows(dataset, source["inputs"])
    if dataset.kind == "words" and source["family"] == "tokens":
        tokenizer = load_tokenizer(source)
        words = word_rows(dataset, tokenizer, max_length, aligned)
        return (_as_declared(row, source, tokenizer, dataset.name) for row in words)
    check_kind(dataset, source["task"], source["data"], source["family"])
    if dataset.kind == "image":
        return _image_rows(dataset, source)
    if dataset.kind == "audio":
        return audio_rows(dataset, Path(source["path"]))
    return _text_rows(dataset, source, max_length)


def _text_rows(dataset: Dataset, source: dict[str, Any], max_length: int) -> Iterator[Row]:
    tokenizer = load_tokenizer(source)
    for sample in _sequences(dataset, source["family"]):
        with refused(f"The tokenizer of {source['name']!r} cannot encode a text of {dataset.name!r}", _CHECK_TOKENIZER):
            encoded = tokenizer(*sample, truncation=True, max_length=max_length)
            row = {
                name: np.asarray([encoded[name]], dtype=np.int64)
                for name in tokenizer.model_input_names
                if name in encoded
            }
        if not row or not all(array.size for array in row.values()):
            raise UsageError(
                f"The tokenizer of {source['name']!r} makes nothing of a text of {dataset.name!r}.", _CHECK_TOKENIZER
            )
        yield _as_declared(row, source, tokenizer, dataset.name)


def _as_declared(row: Row, source: dict[str, Any], tokenizer: Any, where: str) -> Row:
    """The row in the dtypes that a graph declares, and padded at its end if all its texts have one length."""
    length = fixed_length(source["inputs"])
    if length is not None:
        if tokenizer.pad_token_id is None:
            raise UsageError(
                f"The inputs of {source['name']!r} have {length} tokens, and its tokenizer has no padding token.",
                'Name one as "pad_token" in tokenizer_config.json, or export the graph with a dynamic sequence axis.',
            )
        fill = {"input_ids": tokenizer.pad_token_id}
        row = {
            name: np.pad(array, ((0, 0), (0, length - array.shape[1])), constant_values=fill.get(name, 0))
            for name, array in row.items()
        }
    return fitted(row, source["inputs"], where)


def _sequences(dataset: Dataset, family: str) -> Iterator[tuple[str, ...]]:
    """What goes through the tokenizer: a text, a pair for a pair classifier, or first all left and then all right
    sides of pairs whose embeddings will be compared."""
    if not dataset.pairs:
        yield from ((text,) for text in dataset.samples)
    elif family == "embedding":
        for side in (0, 1):
            yield from ((pair[side],) for pair in dataset.samples)
    else:
        yield from dataset.samples


def _pads(source: dict[str, Any]) -> dict[str, int]:
    """What fills up shorter sequences of a batch, by input name; 0 fills the others."""
    tokenizer = load_tokenizer(source)
    known = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    return {name: value for name, value in known.items() if value and name in tokenizer.model_input_names}


def load_tokenizer(source: dict[str, Any]) -> Any:
    """The folder's own tokenizer, or the one of `with_tokenizer`; UsageError if there is none."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds to import, and images do not need it

    place = Path(source.get(TOKENIZER, source["path"]))
    with refused(
        f"The folder {Path(source['path']).name!r} has no tokenizer that transformers can load",
        "Add its tokenizer.json, or give the model as a factory (file.py:name) and its inputs as .npz.",
    ):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=source["trust_remote_code"])
        names = tokenizer.model_input_names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError(f"tokenizer_config.json of {place.name!r}: model_input_names is {names!r}.")
        return tokenizer


def tokenizer_inputs(source: dict[str, Any]) -> list[str]:
    """Names of the inputs that the folder's tokenizer makes; UsageError if it has none."""
    return list(load_tokenizer(source).model_input_names)


def _image_rows(dataset: Dataset, source: dict[str, Any]) -> Iterator[Row]:
    prepare = image_preprocessing(source)
    name = next(iter(source["inputs"]), "pixel_values")
    if source["family"] == "detector" and (prepare.crop is not None or not isinstance(prepare.resize, tuple)):
        raise UsageError(
            "The detector's preprocessor_config.json crops its images or keeps their shape.",
            'Boxes need the whole image at one size: "size": {"height": ..., "width": ...}, no crop.',
        )
    for image in dataset.samples:
        yield fitted({name: prepare(image)[None]}, source["inputs"], dataset.name)


def image_preprocessing(source: dict[str, Any]) -> ImagePreprocessing:
    """The recipe's image processing, or else the one of the model's own folder."""
    if source["preprocessing"] is not None:
        return ImagePreprocessing.model_validate(source["preprocessing"])
    if source["kind"] != "huggingface":
        raise unprepared(source["name"])
    return ImagePreprocessing.from_config(Path(source["path"]) / PREPROCESSOR)


def image_size(source: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a Hugging Face model's images: what its processor makes, or where the folder has none, what
    config.json says; None if neither tells."""
    folder = Path(source["path"])
    if source["preprocessing"] is not None or (folder / PREPROCESSOR).is_file():
        return image_preprocessing(source).size
    size = read_config(folder).get("image_size")
    if size is None:
        return None
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
        raise UsageError(f"config.json of {folder.name!r}: image_size is {size!r}, not a height and a width.")
    return sides[0], sides[1]


def _random_rows(source: dict[str, Any], count: int, max_length: int) -> Iterator[Row]:
    """Uniform token ids or standard normal pixels: they say nothing about real activations."""
    if source["inputs"]:
        yield from random_rows(source["inputs"], count, max_length)
        return
    if source["data"] == "audio":
        raise UsageError("There are no random recordings.", "Give real ones with --calibration-data.")
    config = read_config(Path(source["path"]))
    generator = np.random.default_rng(0)
    for _ in range(count):
        if source["data"] == "image":
            shape = (1, config.get("num_channels", 3), *(image_size(source) or (224, 224)))
            yield {"pixel_values": generator.standard_normal(shape, dtype=np.float32)}
        else:
            words = config.get("text_config", config)
            if not isinstance(words, dict) or "vocab_size" not in words:
                raise UsageError(f"config.json of {source['name']!r} has no vocab_size to draw tokens from.")
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
