"""`python -m benchmarks.matrix`: the table of docs/measurements.md that shows each source under each scheme.

"no operator": the export is refused, since the scheme takes none of the model's weights. Any other cell is the SQNR in
dB of the quantized graph against the float one on calibration samples, and the share of weights stored in 8 bits or
fewer.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile

from benchmarks import cnn, minilm
from pipeline import export
from pipeline.core.errors import StageError

SCHEMES = ("fp16", "w8a8-dynamic", "w8a8", "w8", "w4", "w4a8", "w4a8-dynamic")


def main() -> int:
    print("| source | " + " | ".join(f"`{scheme}`" for scheme in SCHEMES) + " |")
    print("|---" * (len(SCHEMES) + 1) + "|")
    with tempfile.TemporaryDirectory() as scratch, _sources(Path(scratch)) as sources:
        for title, options in sources.items():
            cells = [_cell(options, scheme, Path(scratch)) for scheme in SCHEMES]
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    return 0


@contextmanager
def _sources(scratch: Path) -> Iterator[dict[str, dict[str, object]]]:
    """Title -> options of `export`."""
    yield {
        "Hugging Face folder, all-MiniLM-L6-v2": {},
        "ONNX file, the same model": {"model": str(_onnx_file(scratch)), "task": "feature-extraction"},
        "PyTorch factory, ResNet-20": _factory("resnet20"),
        "PyTorch factory, SqueezeNet 1.1": _factory("squeezenet"),
    }


def _onnx_file(scratch: Path) -> Path:
    made = minilm.artifacts("fp32", "phone")["bundle"].path
    for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json"):
        copyfile(made / name, scratch / name)
    return scratch / "model.onnx"


def _factory(name: str) -> dict[str, object]:
    network = cnn.NETWORKS[name]
    return {
        "model": network.model(),
        "base": (cnn.RECIPES / network.recipe).read_text(encoding="utf-8"),
        "calibration_data": str(cnn.data(network.calibration)),
        "eval_data": (str(cnn.data(network.evaluation)),),
    }


def _cell(options: dict[str, object], scheme: str, scratch: Path) -> str:
    given = dict(options)
    base = given.pop("base", None)
    recipe = scheme
    if base is not None:
        recipe = str(scratch / f"{scheme}.toml")
        Path(recipe).write_text(str(base).replace('scheme = "w8a8"', f'scheme = "{scheme}"'), encoding="utf-8")
    try:
        report = export(recipe=recipe, output=scratch / "out", **given).report  # type: ignore[arg-type]
    except StageError as error:
        assert "takes none of the model's weights" in error.message  # noqa: S101  # nothing else may fail
        return "no operator"
    assert report.quantization is not None and report.coverage is not None  # noqa: S101  # all these schemes round
    return f"{report.quantization.outputs[0].sqnr_db:.1f} dB, {report.coverage.weights.value:.0%}"


if __name__ == "__main__":
    sys.exit(main())
