"""Models that a Python program has in memory, as sources that have a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UsageError
from pipeline.core.silence import silence_output
from pipeline.core.untrusted import users_code, words
from pipeline.source.factory import held, is_model

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def named(
    model: str | nn.Module, processor: Any = None, example_inputs: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """The name by which `model` is resolved as long as the context lasts.

    Args:
        model: A name already, or a PyTorch model.
        processor: Of a transformers model, its tokenizer, image processor or feature extractor. Both are saved to a
            folder of their own for the time.
        example_inputs: Of any other model, tensors by input name; the first axis of each is the batch.

    Raises:
        UsageError: If there is neither, or both, or a name comes with either.
    """
    if isinstance(model, str):
        if processor is not None or example_inputs is not None:
            raise UsageError(
                f"processor and example_inputs are for models in memory; {model!r} is a name.", "Leave them out."
            )
        yield model
    elif not is_model(model):
        raise UsageError(f"A {type(model).__name__} is no model.", "Give the name of a model, or a torch.nn.Module.")
    elif (processor is None) == (example_inputs is None):
        raise UsageError(
            f"A {type(model).__name__} in memory needs either processor or example_inputs.",
            "processor: the tokenizer or image processor of a transformers model; example_inputs: of others, tensors "
            "by input name.",
        )
    elif example_inputs is not None:
        with held(model, example_inputs) as name:
            yield name
    else:
        with _saved(model, processor) as folder:
            yield folder


@contextmanager
def _saved(model: Any, processor: Any) -> Iterator[str]:
    for part in (model, processor):
        if not hasattr(part, "save_pretrained"):
            raise UsageError(
                f"A {type(part).__name__} is none of transformers' classes: it has no save_pretrained.",
                "Give example_inputs in place of processor for other models.",
            )
    name = Path(str(getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__)).name
    with tempfile.TemporaryDirectory(prefix="edge-model-") as scratch:
        folder = Path(scratch) / name
        for part, what in ((model, "model"), (processor, "processor")):
            with silence_output(), users_code(partial(_unsaved, what)):
                part.save_pretrained(folder)
        yield str(folder)


def _unsaved(what: str, error: BaseException) -> str:
    return f"The {what} cannot be saved by its save_pretrained: {type(error).__name__}: {words(error)}"
