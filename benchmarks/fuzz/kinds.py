"""What is nasty to each kind of input, and which probe reads it. A case is a function of (working folder, valid inputs, dice)
that leaves a bad input in the folder and returns what it is and the probe."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.fuzz import archives, networks, pictures, probes
from benchmarks.fuzz.mutate import NASTY, RAW, damage_bytes, damage_json, damage_toml, special_file

Case = tuple[str, Callable[[], object]]
Kind = Callable[[Path, Path, Random], Case]


def _damage(path: Path, dice: Random, text: Callable[[str, Random], str] | None = None) -> str:
    """Damage a file in place: as a tree if `text` can, as bytes, or what kind of file it is."""
    chance = dice.random()
    if chance < 0.12:
        return special_file(path, dice)
    if text is not None and chance < 0.75:
        changed = text(path.read_text(encoding="utf-8"), dice)
        path.write_bytes(changed.encode("utf-8", "surrogatepass"))
        return "tree"
    path.write_bytes(damage_bytes(path.read_bytes(), dice))
    return "bytes"


def _with(place: Path, seeds: Path, *names: str) -> None:
    for name in ("target.toml", "texts.txt", *names):
        if (seeds / name).is_dir():
            shutil.copytree(seeds / name, place / name)
        else:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(seeds / name, place / name)


_TEXTS = {"calibration_data": "texts.txt", "eval_data": ("texts.txt",)}


def bert(place: Path, seeds: Path, dice: Random) -> Case:
    """A text model's config, tokenizer and pooling."""
    _with(place, seeds, "bert")
    name = dice.choice(
        (
            "config.json",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "modules.json",
            "1_Pooling/config.json",
        )
    )
    how = _damage(place / "bert" / name, dice, damage_json)
    return f"{name}: {how}", partial(probes.export, load=dice.random() < 0.5, model="bert", **_TEXTS)


def weights(place: Path, seeds: Path, dice: Random) -> Case:
    """A safetensors file, its header, or an index."""
    _with(place, seeds, "bert")
    file = place / "bert" / "model.safetensors"
    probe = partial(probes.export, samples=False, load=True, model="bert", **_TEXTS)
    kind = dice.randrange(4)
    if kind == 0:
        return f"weights: {_damage(file, dice)}", probe
    if kind == 1:
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = damage_json(data[8 : 8 + length].decode(), dice).encode("utf-8", "surrogatepass")
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
        return "weights: header tree", probe
    if kind == 2:
        length = dice.choice((0, 1, 7, 100, 2**31, 2**40, 2**63, 2**64 - 1))
        file.write_bytes(
            struct.pack("<Q", length) + dice.choice((b"", b"{}", b"[]", b"null", b"{", file.read_bytes()[8:]))
        )
        return f"weights: header of {length} bytes", probe
    shard = dice.choice(
        (
            "model.safetensors",
            "../canary",
            "/etc/passwd",
            "nothing",
            "",
            ".",
            "a\0b",
            "config.json",
            "link",
            "\x1b[2J",
            "x" * 5000,
        )
    )
    (place / "bert" / "link").symlink_to("/etc/passwd")
    index = place / "bert" / "model.safetensors.index.json"
    entries = f'{{"metadata": {{}}, "weight_map": {{"a": {_json(shard)}}}}}'
    index.write_text(damage_json(entries, dice) if dice.random() < 0.5 else entries)
    return f"index: {shard[:20]!r}", probe


def _json(text: str) -> str:
    import json

    return json.dumps(text)


def vit(place: Path, seeds: Path, dice: Random) -> Case:
    """An image model's config and image processing."""
    _with(place, seeds, "vit", "images")
    name = dice.choice(("config.json", "preprocessor_config.json", "preprocessor_config.json"))
    how = _damage(place / "vit" / name, dice, damage_json)
    given = {"calibration_data": "images", "eval_data": ("images",), "model": "vit"}
    return f"vit {name}: {how}", partial(probes.export, load=dice.random() < 0.3, **given)


def onnx(place: Path, seeds: Path, dice: Random) -> Case:
    """An ONNX file and its data."""
    _with(place, seeds, "onnx", "inputs.npz")
    file = place / "onnx" / "m.onnx"
    chance = dice.random()
    if chance < 0.7:
        how = networks.damage(file, dice)
    elif chance < 0.8:
        how = "data: " + _damage(place / "onnx" / "w.bin", dice)
    else:
        how = _damage(file, dice)
    given = {"calibration_data": "inputs.npz", "eval_data": ("inputs.npz",), "task": "text-classification"}
    return f"onnx: {how}", partial(probes.export, trace=True, model="onnx/m.onnx", **given)


def target(place: Path, seeds: Path, dice: Random) -> Case:
    _with(place, seeds, "bert")
    how = _damage(place / "target.toml", dice, damage_toml)
    return f"target: {how}", partial(probes.export, samples=False, model="bert", **_TEXTS)


def recipe(place: Path, seeds: Path, dice: Random) -> Case:
    _with(place, seeds, "bert", "recipe.toml")
    how = _damage(place / "recipe.toml", dice, damage_toml)
    return f"recipe: {how}", partial(
        probes.export, samples=False, model="bert", recipe="recipe.toml", eval_data=("texts.txt",)
    )


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
    _with(place, seeds, name, "bert")
    path = place / name
    if dice.random() < 0.4:
        lines = path.read_bytes().split(b"\n")
        lines[dice.randrange(len(lines))] = (found := dice.choice(_FIELDS))
        path.write_bytes(b"\n".join(lines))
        how = f"line {found[:20]!r}"
    else:
        how = _damage(path, dice)
    if name == "references.csv":
        return f"{name}: {how}", partial(probes.references, name)
    given = {"calibration_data": "texts.txt", "eval_data": (name,), "calibration_samples": 8}
    return f"{name}: {how}", partial(probes.export, model="bert", **given)


def tensors(place: Path, seeds: Path, dice: Random) -> Case:
    name = dice.choice(("inputs.npz", "images.npz"))
    _with(place, seeds, "inputs.npz", "images.npz", "onnx")
    how = _damage(place / name, dice) if dice.random() < 0.4 else archives.write(place / name, dice)
    if dice.random() < 0.5:
        return f"npz: {how}", partial(probes.data, name)
    given = {"calibration_data": "inputs.npz", "eval_data": (name,), "task": "text-classification"}
    return f"npz: {how}", partial(probes.export, model="onnx/m.onnx", **given)


def images(place: Path, seeds: Path, dice: Random) -> Case:
    _with(place, seeds, "images", "vit")
    files = sorted((place / "images").iterdir())
    path = dice.choice(files)
    how = _damage(path, dice) if dice.random() < 0.5 else pictures.write(path, dice)
    given = {"calibration_data": "images", "eval_data": ("images",), "model": "vit"}
    return f"image: {how}", partial(probes.export, **given) if dice.random() < 0.4 else partial(probes.data, "images")


def recordings(place: Path, seeds: Path, dice: Random) -> Case:
    _with(place, seeds, "audio")
    path = place / "audio" / "03.wav"
    how = _damage(path, dice) if dice.random() < 0.6 else pictures.write_wav(path, dice)
    return f"wav: {how}", partial(probes.data, "audio")


def objects(place: Path, seeds: Path, dice: Random) -> Case:
    """YOLO and COCO labels."""
    if dice.random() < 0.6:
        _with(place, seeds, "coco")
        return f"coco: {_damage(place / 'coco' / 'coco.json', dice, damage_json)}", partial(
            probes.data, "coco/coco.json"
        )
    _with(place, seeds, "yolo")
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
        how = _damage(path, dice)
    return f"yolo: {how[:20]!r}", partial(probes.data, "yolo")


def bundles(place: Path, seeds: Path, dice: Random) -> Case:
    """A bundle whose manifest agrees with the damage, so that what lies behind it is reached."""
    _with(place, seeds, "made/bundle")
    folder = place / "made" / "bundle"
    name = dice.choice(
        (
            "metadata.json",
            "golden/golden.json",
            "model.onnx",
            "manifest.json",
            "golden/0/input_ids.npy",
            "metadata.json",
        )
    )
    path = folder / name
    if not path.is_file():
        path = folder / "metadata.json"
    how = _damage(path, dice, damage_json if path.suffix == ".json" else None)
    if name != "manifest.json" and dice.random() < 0.8 and path.is_file() and path.stat().st_size < 10**8:
        from pipeline.bundle.manifest import read_manifest, write_manifest

        for record in ("artifact.json", "manifest.json"):  # neither lists itself
            (folder / record).unlink(missing_ok=True)
        write_manifest(folder, read_manifest(seeds / "made" / "bundle")["provenance"])
    return f"bundle {name}: {how}", partial(dice.choice((probes.bundle, probes.example)), "made/bundle")


def baselines(place: Path, seeds: Path, dice: Random) -> Case:
    _with(place, seeds, "made/report.json")
    how = _damage(place / "made" / "report.json", dice, damage_json)
    return f"baseline: {how}", partial(probes.baseline, "made/report.json")


_CODE = (
    "raise KeyboardInterrupt", "raise SystemExit(0)", "raise GeneratorExit", "raise BaseException('x')", "raise RecursionError", "import nowhere",
    "class Own(BaseException): pass\n    raise Own('\\x1b[2J')", "raise ExceptionGroup('a', [ValueError('b')])", "return None", "return 10**5000",
    "return make()", "raise MemoryError", "raise StopIteration", "return float('nan')", "return 1 + 1j", "return 'x'", "return [[]]",
    "raise OSError(28, 'No space left')", "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad')", "raise ValueError('[red]\\x1b[31mx')",
    "import torch; m = torch.nn.Linear(8, 4); m.state_dict = lambda *a, **k: 1 / 0; return m",
    "import torch; m = torch.nn.Linear(8, 4); m.weight.data = torch.eye(8).to_sparse(); return m",
    "import torch; return torch.nn.Linear(8, 4, device='meta')", "import torch; return torch.nn.Linear", "return __builtins__",
    "import torch\n    class Odd(torch.nn.Module):\n        def eval(self): raise KeyError(3)\n    return Odd()",
    "import torch\n    class Odd(torch.nn.Module):\n        def __deepcopy__(self, memo): raise TypeError('no copies')\n    return Odd()",
    "class Odd:\n        def __float__(self): raise KeyboardInterrupt\n    return Odd()", "class Odd:\n        def __float__(self): return 10**400\n    return Odd()",
    "class Odd:\n        @property\n        def __class__(self): raise ValueError('none')\n    return Odd()", "return 10**400",
)  # fmt: skip


def code(place: Path, seeds: Path, dice: Random) -> Case:
    """Factories and metrics, which are code."""
    body = dice.choice(_CODE)
    _with(place, seeds, "inputs.npz")
    which = dice.randrange(3)
    given = {
        "calibration_data": "inputs.npz",
        "eval_data": ("inputs.npz",),
        "task": "text-classification",
        "load": True,
    }
    if which == 0:
        (place / "own.py").write_text(f"def make(*given):\n    {body}\n")
        return f"metric: {body[:40]!r}", partial(probes.metric, "own.py:make")
    if which == 1:
        (place / "own.py").write_text(
            f"def make():\n    {body}\n\ndef example_inputs():\n    import torch\n    return {{'x': torch.zeros(2, 8)}}\n"
        )
    else:
        value = dice.choice(
            (
                "{'x': 1}",
                "[]",
                "{'x': torch.zeros(0, 8)}",
                "{'x': torch.zeros(2, 8, dtype=torch.complex64)}",
                "{1: torch.zeros(2, 8)}",
                "{'../x': torch.zeros(2, 8)}",
                "{'x': torch.zeros(0, 8, dtype=torch.long)}",
                "{}",
                "{'x': torch.full((2, 8), 2**62)}",
                "{'x': torch.full((2, 8), -5)}",
            )
        )
        first = dice.choice(("", f"{body}\n    "))
        (place / "own.py").write_text(
            f"import torch\ndef make():\n    return torch.nn.Linear(8, 4)\n\ndef example_inputs():\n    {first}return {value}\n"
        )
        body = first + value
    return f"factory: {body[:60]!r}", partial(probes.export, model="own.py:make", **given)


_NAMES = (
    "[red]x[/red]",
    "\x1b[2J",
    "\u202egnp",
    "a b",
    "-x",
    "'",
    '"',
    "*",
    "%s",
    "{0}",
    "\n",
    "\r",
    "~",
    "$HOME",
    "x" * 200,
    ":warning:",
    "[/]",
    "\udcff",
    "a\x9bb",
    "..",
    "",
    " ",
    "con",
    "a:b",
)


def names(place: Path, seeds: Path, dice: Random) -> Case:
    """Odd names of files, and odd words of flags, through the command line itself."""
    _with(place, seeds, "bert", "made/bundle", "recipe.toml")
    name = dice.choice(_NAMES)
    which = dice.randrange(6)
    flags = ["--target", "target.toml", "--recipe", "w8a8-dynamic", "--calibration-data", "texts.txt", "--calibration-samples", "8",
             "--eval-data", "texts.txt", "--store", "store", "--dry-run"]  # fmt: skip
    if which == 0 and "/" not in name and name not in ("", ".."):
        (place / "bert").rename(place / name)
        return f"model folder {name!r}", partial(probes.command, "export", "--model", f"./{name}", *flags)
    if which == 1:
        (place / "target.toml").write_text(
            (place / "target.toml").read_text().replace("A device that takes anything", _toml(name))
        )
        return f"target title {name!r}", partial(probes.command, "export", "--model", "bert", *flags)
    if which == 2 and "/" not in name and name not in ("", ".."):
        path = place / f"{name}.txt"
        path.write_text("a\n" * 30)
        return f"data {name!r}", partial(
            probes.command, "export", "--model", "bert", *flags, "--eval-data", f"./{name}.txt"
        )
    if which == 3:
        flag = dice.choice(("--model", "--target", "--recipe", "--task", "--metric", "--references", "--baseline", "--budget", "--nodes-to-exclude",
                            "--calibration-data", "--eval-data", "--opset", "--threads", "--training-data"))  # fmt: skip
        value = dice.choice(
            (
                name,
                "9" * 5000,
                "nan",
                "1e999",
                "a=nan",
                "bundle_mb=1e999",
                "bundle_mb=",
                "/dev/zero",
                "/dev/null",
                "/",
                "onnx.onnx",
            )
        )
        return f"flag {flag} {value[:30]!r}", partial(probes.command, "export", "--model", "bert", *flags, flag, value)
    if which == 4:
        return f"bundle {name!r}", partial(
            probes.command, "inspect", dice.choice((name, "made/bundle", "/dev/zero", "texts.txt", "/"))
        )
    return f"gate {name!r}", partial(
        probes.command, "gate", "--model", name, "--target", "target.toml", "--store", "store", "--output", "nowhere"
    )


def _toml(name: str) -> str:
    return "".join(
        c if c.isalnum() or c in " []/.:*" else f"\\u{ord(c):04x}" if not 0xD800 <= ord(c) < 0xE000 else "?"
        for c in name
    )


KINDS: dict[str, Kind] = {
    "bert": bert, "weights": weights, "vit": vit, "onnx": onnx, "target": target, "recipe": recipe, "texts": texts, "tensors": tensors,
    "images": images, "recordings": recordings, "objects": objects, "bundles": bundles, "baselines": baselines, "code": code, "names": names,
}  # fmt: skip
_ = (NASTY, RAW)
