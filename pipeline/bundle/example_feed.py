"""The inputs that a bundle is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.bundle.golden import golden_arrays, read_golden
from pipeline.bundle.records import METADATA, read_metadata
from pipeline.config.target import Shape
from pipeline.core.errors import IntegrityError
from pipeline.devices.worker import Feed
from pipeline.graph.files import Graphs


def example_feed(bundle: Path, shape: Shape) -> Feed:
    """Inputs of the shape that the target measures at: the golden sample's values, repeated to fill it.

    Real values, since data-dependent kernels (dynamic ranges) must see what an app sees.
    """
    arrays, metadata = golden_arrays(bundle, 0, read_golden(bundle).inputs), read_metadata(bundle)
    longest = min(shape.sequence_length, metadata.max_length or shape.sequence_length)  # apps cut texts to the latter
    feed = {}
    for name, entry in Graphs(bundle, metadata.graphs).inputs.items():
        if name not in arrays:
            raise IntegrityError(f"The bundle {bundle} has no golden input {name!r}.", "Export it again.")
        golden = arrays[name]
        if not _fits(entry.shape, golden.shape):
            raise IntegrityError(
                f"The bundle {bundle} has a golden input {name!r} of {list(golden.shape)}, where {METADATA} says "
                f"{list(entry.shape)}.",
                "Export it again.",
            )
        sizes = {"batch": shape.batch_size, "sequence": longest, "total": longest}  # of a language model, no past
        if metadata.decoder is not None:
            sizes["decoder_sequence"] = metadata.decoder.most(shape.sequence_length)
        if golden.dtype.kind == "f":  # a recording's length is not counted in tokens
            sizes = {"batch": shape.batch_size}
        wanted = tuple(
            sizes.get(d, own) if isinstance(d, str) else int(d)
            for d, own in zip(entry.shape, golden.shape, strict=True)
        )
        feed[name] = np.resize(golden, wanted).astype(golden.dtype)
    return feed


def _fits(said: Sequence[int | str], shape: Sequence[int]) -> bool:
    """Whether a shape has the axes that are said, the named ones of any size."""
    return len(said) == len(shape) and all(isinstance(d, str) or d == own for d, own in zip(said, shape, strict=True))
