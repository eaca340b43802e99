"""Data sets: texts, tables, arrays, sequences, images, recordings, objects and masks of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

from benchmarks.fuzz import archives, parquet, pictures, probes
from benchmarks.fuzz.case import Case, bring, damage
from benchmarks.fuzz.mutate import damage_json, damage_toml

_FIELDS = (
    b"\0", b"\xff", b'"', b'""', b"\t", b",", b"{}", b'{"text": null}', b'{"text": "\\ud800", "label": 1}', b'{"text": "a", "label": 1e999}',
    b'{"text": "a", "label": NaN}', b'{"text": "a", "label": ' + b"9" * 5000 + b"}", b"[" * 5000, b'{"tokens": ["a", 1], "labels": [0]}',
    b'{"tokens": ["a"], "labels": [1' + b"0" * 40 + b"]}", b'{"tokens": ["a\\ud800"], "labels": [0]}', b"x" * 20_000_000, b"\xe2\x80\xae",
    "\N{SUPERSCRIPT TWO}".encode(), b'{"text": "a", "label": "\xc2\xb2"}', b"1e999\ta\tb", b'{"text": "a", "label": 99999999999999999999}',
    b"\x1b[2J", b'"a,b,c', b"a,b,c", b"\r", b"\x0c", b"\xc2\x85", b'{"sentence1": "a", "sentence2": "b", "score": 1e999}',
)  # fmt: skip


def texts(place: Path, seeds: Path, dice: Random) -> Case:
    """Text files of every kind."""
    name = dice.choice(("texts.txt", "texts.jsonl", "words.jsonl", "texts.csv", "pairs.tsv", "references.csv"))
    bring(place, seeds, name, "bert")
    path = place / name
    if dice.random() < 0.4:
        lines = path.read_bytes().split(b"\n")
        lines[dice.randrange(len(lines))] = (found := dice.choice(_FIELDS))
        path.write_bytes(b"\n".join(lines))
        how = f"line {found[:20]!r}"
    else:
        how = damage(path, dice)
    if name == "references.csv":
        return f"{name}: {how}", partial(probes.references, name)
    given = {"calibration_data": "texts.txt", "eval_data": (name,), "calibration_samples": 8}
    return f"{name}: {how}", partial(probes.export, model="bert", **given)


def tensors(place: Path, seeds: Path, dice: Random) -> Case:
    name = dice.choice(("inputs.npz", "images.npz"))
    bring(place, seeds, "inputs.npz", "images.npz", "onnx")
    how = damage(place / name, dice) if dice.random() < 0.4 else archives.write(place / name, dice)
    if dice.random() < 0.5:
        return f"npz: {how}", partial(probes.data, name)
    given = {"calibration_data": "inputs.npz", "eval_data": (name,), "task": "text-classification"}
    return f"npz: {how}", partial(probes.export, model="onnx/m.onnx", **given)


def images(place: Path, seeds: Path, dice: Random) -> Case:
    bring(place, seeds, "images", "vit")
    files = sorted((place / "images").iterdir())
    path = dice.choice(files)
    how = damage(path, dice) if dice.random() < 0.5 else pictures.write(path, dice)
    given = {"calibration_data": "images", "eval_data": ("images",), "model": "vit"}
    return f"image: {how}", partial(probes.export, **given) if dice.random() < 0.4 else partial(probes.data, "images")


def recordings(place: Path, seeds: Path, dice: Random) -> Case:
    bring(place, seeds, "audio")
    if dice.random() < 0.4 and (place / "audio" / "02.flac").is_file():
        return f"flac: {damage(place / 'audio' / '02.flac', dice)}", partial(probes.data, "audio")
    path = place / "audio" / "03.wav"
    how = damage(path, dice) if dice.random() < 0.6 else pictures.write_wav(path, dice)
    return f"wav: {how}", partial(probes.data, "audio")


def tables(place: Path, seeds: Path, dice: Random) -> Case:
    """Parquet: bytes, and columns of odd types; the magic alone where pyarrow is not installed."""
    path = place / "texts.parquet"
    if not (seeds / path.name).is_file():
        path.write_bytes(b"PAR1" + dice.randbytes(40) + b"PAR1")
        how = "no pyarrow"
    elif dice.random() < 0.6:
        bring(place, seeds, path.name)
        how = damage(path, dice)
    else:
        how = parquet.write(path, dice)
    bring(place, seeds, "bert")
    given = {"calibration_data": "texts.txt", "eval_data": (path.name,), "calibration_samples": 8}
    return f"parquet: {how}", partial(probes.export, model="bert", **given)


def sequences(place: Path, seeds: Path, dice: Random) -> Case:
    """Steps of a streaming model, whose states the data may leave out."""
    bring(place, seeds, "stream", "steps.npz", "recipe-stream.toml")
    chance = dice.random()
    if chance < 0.3:
        how = damage(place / "steps.npz", dice)
    elif chance < 0.5:
        how = archives.write(place / "steps.npz", dice)
    elif chance < 0.8:
        how = archives.write_steps(place / "steps.npz", dice)
    else:
        how = "recipe: " + damage(place / "recipe-stream.toml", dice, damage_toml)
    given = {"calibration_data": "steps.npz", "eval_data": ("steps.npz",), "recipe": "recipe-stream.toml"}
    probe = partial(probes.export, trace=True, judge=True, model="stream/m.onnx", calibration_samples=None, **given)
    return f"steps: {how}", probe


def masks(place: Path, seeds: Path, dice: Random) -> Case:
    """Images with a class for every pixel."""
    bring(place, seeds, "segments")
    path = place / "segments" / dice.choice(("masks", "masks", "images")) / "03.png"
    how = damage(path, dice) if dice.random() < 0.5 else pictures.write(path, dice)
    return f"mask: {how}", partial(probes.data, "segments")


def objects(place: Path, seeds: Path, dice: Random) -> Case:
    """YOLO and COCO labels."""
    if dice.random() < 0.6:
        bring(place, seeds, "coco")
        return f"coco: {damage(place / 'coco' / 'coco.json', dice, damage_json)}", partial(
            probes.data, "coco/coco.json"
        )
    bring(place, seeds, "yolo")
    path = place / "yolo" / "labels" / "03.txt"
    if dice.random() < 0.5:
        how = dice.choice(
            (
                "nan 0 0 0 0",
                "0 nan 0 0 0",
                "1e9 0 0 0 0",
                "9" * 5000 + " 0 0 0 0",
                "0 1e999 0 0 0",
                "0 0 0",
                "0 -1 5 7 2",
                "\0",
            )
        )
        path.write_text(how)
    else:
        how = damage(path, dice)
    return f"yolo: {how[:20]!r}", partial(probes.data, "yolo")
