"""`python target.py KIND SCRATCH CORPUS ...flags of libFuzzer`: bytes for one reader, chosen by what they reach in it.

Anything but a UsageError ends the process with a trace and a code that is not 0.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline", "tomllib", "wave", "zipfile"], enable_loader_override=False):
    from pipeline.core.errors import UsageError
    from pipeline.core.untrusted import read_json, read_toml
    from pipeline.data.readers.audio_folder import open_recording
    from pipeline.data.readers.image_folder import open_image
    from pipeline.data.readers.mask_folder import open_mask
    from pipeline.data.readers.tensor_files import read_tensors
    from pipeline.data.readers.text_files import read_texts
    from pipeline.source.onnx_file import read_onnx
    from pipeline.source.weights import check_weights

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "toml": ("x.toml", read_toml),
    "json": ("x.json", read_json),
    "wav": ("x.wav", open_recording),
    "flac": ("x.flac", open_recording),
    "image": ("x.png", open_image),
    "mask": ("x.png", open_mask),
    "onnx": ("x.onnx", read_onnx),
    "npz": ("x.npz", read_tensors),
    "jsonl": ("x.jsonl", read_texts),
    "csv": ("x.csv", read_texts),
    "parquet": ("x.parquet", read_texts),
    "weights": ("model.safetensors", lambda path: check_weights(path.parent)),
}


def main() -> None:
    kind, scratch, *rest = sys.argv[1:]
    name, reader = READERS[kind]
    path = Path(scratch) / name

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UsageError):
            reader(path)

    warnings.simplefilter("ignore")  # numpy and Pillow warn of what they then read or refuse
    atheris.Setup([sys.argv[0], *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
