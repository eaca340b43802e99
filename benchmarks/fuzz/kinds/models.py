"""Models: their configs, weights, graphs, and code."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.fuzz import networks, probes
from benchmarks.fuzz.case import TEXTS, Case, bring, damage
from benchmarks.fuzz.mutate import damage_json


def bert(place: Path, seeds: Path, dice: Random) -> Case:
    """A text model's config, tokenizer and pooling."""
    bring(place, seeds, "bert")
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
    how = damage(place / "bert" / name, dice, damage_json)
    return f"{name}: {how}", partial(probes.export, load=dice.random() < 0.5, model="bert", **TEXTS)


def weights(place: Path, seeds: Path, dice: Random) -> Case:
    """A safetensors file, its header, or an index."""
    bring(place, seeds, "bert")
    file = place / "bert" / "model.safetensors"
    probe = partial(probes.export, samples=False, load=True, model="bert", **TEXTS)
    kind = dice.randrange(4)
    if kind == 0:
        return f"weights: {damage(file, dice)}", probe
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
    bring(place, seeds, "vit", "images")
    name = dice.choice(("config.json", "preprocessor_config.json", "preprocessor_config.json"))
    how = damage(place / "vit" / name, dice, damage_json)
    given = {"calibration_data": "images", "eval_data": ("images",), "model": "vit"}
    return f"vit {name}: {how}", partial(probes.export, load=dice.random() < 0.3, **given)


def onnx(place: Path, seeds: Path, dice: Random) -> Case:
    """An ONNX file and its data."""
    bring(place, seeds, "onnx", "inputs.npz")
    file = place / "onnx" / "m.onnx"
    chance = dice.random()
    if chance < 0.7:
        how = networks.damage(file, dice)
    elif chance < 0.8:
        how = "data: " + damage(place / "onnx" / "w.bin", dice)
    else:
        how = damage(file, dice)
    given = {"calibration_data": "inputs.npz", "eval_data": ("inputs.npz",), "task": "text-classification"}
    return f"onnx: {how}", partial(probes.export, trace=True, model="onnx/m.onnx", **given)


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
    bring(place, seeds, "inputs.npz")
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
