"""`README.md` of a bundle: how an app loads it, what goes in and comes out, and what its figures rest on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.bundle.golden import GOLDEN, TOLERANCE, Golden
from pipeline.bundle.records import Metadata
from pipeline.core.model_spec import ModelSpec
from pipeline.core.report_types import QuantizationCheck
from pipeline.data.image_preprocessing import ImagePreprocessing
from pipeline.graph.files import GraphSpec

README = "README.md"
_ENCODED = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs that the library tokenizers makes -> its name for them."""


def _plain(text: object) -> str:
    """On one line, without what Markdown or HTML would take for markup."""
    return re.sub(r"[`|<>\[\]\r\n]+", " ", str(text))


_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline", "bundle"),
    autoescape=False,  # noqa: S701  # Markdown; names go through `plain`
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["plain"] = _plain


def readme(
    metadata: Metadata,
    target: str,
    golden: Golden,
    spec: ModelSpec,
    licence: str | None,
    check: QuantizationCheck | None,
) -> str:
    """The text, in Markdown.

    Args:
        metadata: What `metadata.json` says.
        target: The name of the target that the bundle was made for.
        golden: The golden samples.
        spec: The model source.
        licence: What the model's own card states; None if nothing.
        check: What the comparison with float found; None where nothing was rounded.
    """
    graph, labels = metadata.graphs[0], ordered_labels(metadata.labels)
    client = _text_client(metadata) or _image_client(graph, spec) or _golden_client(golden)
    encoded = "tokenizer_config.json" in metadata.preprocessing and _takes_text(metadata)
    text = _ENVIRONMENT.get_template("README.md.jinja").render(
        metadata=metadata,
        target=target,
        graph=graph,
        labels=labels,
        names_classes=bool(labels) and len(graph.outputs) == 1 and len(graph.outputs[0].shape) == 2,
        javascript=encoded,
        session_options=_session_options(metadata),
        measured=_measured(check),
        tolerance=TOLERANCE,
        licence=_licence(licence),
        **client,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _takes_text(metadata: Metadata) -> bool:
    """Whether a tokenizer makes all that the only graph takes."""
    names = {entry.name for graph in metadata.graphs for entry in graph.inputs}
    return len(metadata.graphs) == 1 and "tokenizer.json" in metadata.preprocessing and names <= set(_ENCODED)


def _text_client(metadata: Metadata) -> dict[str, str] | None:
    """How texts become inputs; None where a tokenizer alone does not make them."""
    if not _takes_text(metadata):
        return None
    graph = metadata.graphs[0]
    rows = [
        f'    "{entry.name}": np.array([text.{_ENCODED[entry.name]} for text in texts], np.{entry.dtype}),'
        for entry in graph.inputs
    ]
    made = 'texts = Tokenizer.from_file("tokenizer.json").encode_batch(["The first text.", "Another one."])'
    feed = "\n".join([made, "feed = {", *rows, "}"])
    return {"packages": " tokenizers", "imports": "from tokenizers import Tokenizer\n", "feed": feed}


def _image_client(graph: GraphSpec, spec: ModelSpec) -> dict[str, str] | None:
    """How an image becomes the input; None for models that take none, or images prepared in another way."""
    if spec.data != "image" or spec.preprocessing is None or len(graph.inputs) != 1:
        return None
    steps = ImagePreprocessing.model_validate(spec.preprocessing)
    if not isinstance(steps.resize, tuple) or steps.crop is not None:
        return None
    (height, width), scale = steps.resize, 1.0 if steps.rescale is None else steps.rescale
    lines = [
        'image = Image.new("RGB", (640, 480), "orange")  # Image.open("photo.jpg").convert("RGB")',
        f"pixels = np.asarray(image.resize(({width}, {height}), {steps.resample}), np.float32) * {scale!r}",
        f"pixels = (pixels - np.array({list(steps.mean)}, np.float32)) / np.array({list(steps.std)}, np.float32)",
        f"feed = {{{json.dumps(graph.inputs[0].name)}: pixels.transpose(2, 0, 1)[None].astype(np.float32)}}",
    ]
    return {"packages": " pillow", "imports": "from PIL import Image\n", "feed": "\n".join(lines)}


def _golden_client(golden: Golden) -> dict[str, str]:
    """The first golden sample, where nothing is known of what inputs are made from."""
    rows = [f'    {json.dumps(entry.name)}: np.load("{GOLDEN}/0/{entry.file}"),' for entry in golden.inputs]
    return {"packages": "", "imports": "", "feed": "\n".join(["feed = {", *rows, "}"])}


def _session_options(metadata: Metadata) -> str:
    """As onnxruntime-node takes them: a config entry `a.b` is `{a: {b: ...}}` under `extra`."""
    extra: dict[str, Any] = {}
    for key, value in metadata.runtime.session_config.items():
        *places, last = key.split(".")
        inner = extra
        for place in places:
            inner = inner.setdefault(place, {})
        inner[last] = value
    options: Mapping[str, Any] = {"intraOpNumThreads": metadata.runtime.threads, **({"extra": extra} if extra else {})}
    return json.dumps(options)


def _measured(check: QuantizationCheck | None) -> str:
    if check is None:
        return "The weights are the float model's."
    worst = min(check.outputs, key=lambda output: output.sqnr_db)
    return (
        f"Against the float model on {check.samples} {check.data} samples, the signal-to-noise ratio of "
        f"`{_plain(worst.name)}` is {worst.sqnr_db:.1f} dB."
    )


def _licence(stated: str | None) -> str:
    """The model's licence, not edge-pipeline's, says what may be done with a bundle."""
    if stated is None:
        return "The model's folder states none: ask whoever published the model before you ship it."
    return f"The model's card says `{stated}`; what that asks for holds for this bundle too."


def ordered_labels(labels: Mapping[str, Any] | None) -> list[str]:
    """Class names in the order of their indices; empty unless every index up to the last has one."""
    names = {int(index): str(name) for index, name in (labels or {}).items() if index.isdigit()}
    return [names[index] for index in range(len(names))] if sorted(names) == [*range(len(names))] else []
