"""Numbered cases, and the published counts of their faults."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.fuzz.harness import Result, fresh, run_case
from benchmarks.fuzz.kinds import KINDS
from benchmarks.fuzz.seeds import write_seeds
from benchmarks.row import Measured, Row

FAULTS = ("traceback", "hang", "escape", "terminal")
_COUNT = 1000


def fuzz(
    numbers: Iterable[int], seeds: Path, run: Path, kind: str | None = None
) -> Iterator[tuple[int, str, str, Result]]:
    """The cases `numbers`, one after the other over all kinds: number, kind, what is wrong with the input, result."""
    write_seeds(seeds)
    _warm_up()
    for number in numbers:
        name = kind or list(KINDS)[number % len(KINDS)]
        place = fresh(run)
        what, probe = KINDS[name](place, seeds, Random(number))
        yield number, name, what, run_case(place, probe)


def _warm_up() -> None:
    """Import once what every child would import."""
    import onnxruntime  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from transformers import AutoModel, AutoTokenizer, BertModel, ViTForImageClassification  # noqa: F401

    import pipeline.api
    import pipeline.cli.export
    import pipeline.cli.lists
    import pipeline.source.torch_model
    import pipeline.trace.import_onnx  # noqa: F401

    torch.set_num_threads(1)  # threads do not survive a fork


@cache
def _counts() -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="edge-fuzz-") as scratch:
        cases = fuzz(range(_COUNT), Path(scratch) / "seeds", Path(scratch) / "run")
        return Counter(result.verdict for *_, result in cases)


def _row(name: str, *verdicts: str) -> Row:
    def measure() -> Measured:
        counts = _counts()
        return Measured(float(sum(counts[verdict] for verdict in verdicts)), float(counts.total()))

    return Row(f"fuzz.{name}", "inputs", "inputs tried", measure)


ROWS = [_row("tracebacks", "traceback", "terminal"), _row("escapes", "escape"), _row("hangs", "hang")]
