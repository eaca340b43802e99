"""`README.md` of a bundle: how an app loads it, what goes in and comes out, and what its figures rest on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.bundle.golden import Golden
from pipeline.bundle.readme_code import client_lines, javascript_lines, python_lines
from pipeline.bundle.records import Metadata
from pipeline.core.model_spec import ModelSpec
from pipeline.core.report_types import QuantizationCheck
from pipeline.data.encode import image_preprocessing
from pipeline.data.raw import IMAGE

README = "README.md"


def _plain(text: object) -> str:
    """On one line, without what Markdown or HTML would take for markup."""
    return re.sub(r"[`|<>\[\]\r\n]+", " ", str(text))


_ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline.bundle"),
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
    steps = image_preprocessing(spec) if _prepares_images(spec, golden) else None
    text = _ENVIRONMENT.get_template("README.md.jinja").render(
        metadata=metadata,
        target=target,
        graph=graph,
        labels=labels,
        names_classes=bool(labels) and len(graph.outputs) == 1 and len(graph.outputs[0].shape) == 2,
        javascript=None if metadata.layout == "transformers.js" else javascript_lines(metadata, golden, steps),
        client=client_lines(metadata, golden, spec),
        session_options=_session_options(metadata),
        measured=_measured(check),
        tolerance=golden.tolerance,
        licence=_licence(licence),
        **python_lines(metadata, golden, steps),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _prepares_images(spec: ModelSpec, golden: Golden) -> bool:
    """Whether it is known how images become inputs: a recipe says so, or the samples were images."""
    return spec.data == "image" and (spec.preprocessing is not None or golden.raw == IMAGE)


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
