"""Damaged checkpoints of codes: every one is read, or refused by a message of ours."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from coded_checkpoints import AWQ, COMPRESSED, GPTQ, awq, compressed, gguf_file, gptq, q4_0
from safetensors.numpy import save_file

from pipeline.core.errors import EdgeError
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.weights import check_weights

ODD = (0, -1, 1, 2**31, 2**63, 1e308, "x", None, [], {}, True)
KINDS = {"gptq": (GPTQ, gptq), "awq": (AWQ, awq), "compressed": (COMPRESSED, compressed)}


def read_all(folder: Path, config: dict[str, Any], file: str = "") -> None:
    """As an export does: vetted, then every weight."""
    if not file:
        check_weights(folder)
    checkpoint = coded_checkpoint(folder, config, file)
    assert checkpoint is not None
    for read in (*checkpoint.codes.values(), *checkpoint.floats.values()):
        read()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_gguf_files(seed: int, tmp_path: Path) -> None:
    dice = Random(seed)  # noqa: S311  # numbered, not secret
    values = {"general.architecture": "llama", "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1}
    tensors = {"blk.0.attn_q.weight": (2, (8, 32), q4_0(8, 32)[0]), "output_norm.weight": (0, (4,), bytes(16))}
    whole = gguf_file(tmp_path / "m.gguf", values, tensors).read_bytes()
    read_all(tmp_path, {}, str(tmp_path / "m.gguf"))
    for _ in range(150):
        data = bytearray(whole[: dice.choice((len(whole), len(whole), dice.randrange(len(whole))))])
        for _ in range(dice.randrange(1, 4)):
            if data:
                at = dice.randrange(min(len(data), 300))
                data[at : at + 8] = dice.choice(
                    (bytes([dice.randrange(256)]), struct.pack("<Q", dice.choice((0, 2**40, 2**64 - 1))))
                )
        (tmp_path / "m.gguf").write_bytes(bytes(data))
        with suppress(EdgeError):
            read_all(tmp_path, {}, str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_safetensors_and_settings(kind: str, tmp_path: Path) -> None:
    dice, (settings, pack) = Random(kind), KINDS[kind]  # noqa: S311
    tensors = {f"layer.{part}": array for part, array in pack(16, 96)[0].items()}
    for _ in range(150):
        changed, kept = dict(settings), dict(tensors)
        for _ in range(dice.randrange(3)):
            changed[dice.choice([*settings, "bits", "group_size", "format", "config_groups"])] = dice.choice(ODD)
        for _ in range(dice.randrange(3)):
            name = dice.choice(list(tensors))
            array = tensors[name]
            kept[name] = dice.choice(
                (array[:0], array[:1], array.reshape(-1), array.astype("float32"), array * 0 + 5, array.T)
            )
            if dice.random() < 0.3:
                del kept[name]
        save_file({name: array.copy() for name, array in kept.items()}, tmp_path / "model.safetensors")
        if dice.random() < 0.5:
            _damage_header(tmp_path / "model.safetensors", dice)
        with suppress(EdgeError):
            read_all(tmp_path, {"quantization_config": changed})


def _damage_header(file: Path, dice: Random) -> None:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    entry = header[dice.choice([name for name in header if name != "__metadata__"])]
    part = dice.choice(("dtype", "shape", "data_offsets"))
    entry[part] = {"dtype": dice.choice(("BF16", "F32", "I8", "Q")), "shape": [dice.choice((0, 1, 3, 2**40))] * 2}.get(
        part, [0, 2**40]
    )
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
