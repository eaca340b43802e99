"""Targets, recipes, bundles, reports, names and flags."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

from benchmarks.fuzz import probes
from benchmarks.fuzz.case import TEXTS, Case, bring, damage
from benchmarks.fuzz.mutate import damage_json, damage_toml


def target(place: Path, seeds: Path, dice: Random) -> Case:
    bring(place, seeds, "bert")
    how = damage(place / "target.toml", dice, damage_toml)
    return f"target: {how}", partial(probes.export, samples=False, model="bert", **TEXTS)


def recipe(place: Path, seeds: Path, dice: Random) -> Case:
    bring(place, seeds, "bert", "recipe.toml")
    how = damage(place / "recipe.toml", dice, damage_toml)
    return f"recipe: {how}", partial(
        probes.export, samples=False, model="bert", recipe="recipe.toml", eval_data=("texts.txt",)
    )


_TABLES = {"inputs": "[inputs.h]", "ctc": "[head]", "detection": "[head]"}
_LINES = {
    "inputs": (
        "shape = []", 'shape = ["batch"]', 'shape = ["batch", 4]', 'shape = ["batch", "batch"]', 'shape = [3, "batch"]', "shape = [1, 3]",
        "shape = [2, 3]", 'shape = ["", 3]', 'shape = ["a + b", 3]', 'shape = ["batch", 1000000000]', "shape = [1, 3, 1, 1, 1, 1, 1, 1]",
        'next = "y"', 'next = "h"', 'next = ""', 'next = "\\u001b[2J"', 'dtype = "bool"', 'dtype = "int64"', 'dtype = "float16"', "values = 1000000",
        "value = 1", "value = -1e300", "value = 0.5", "value = [1.0]", "value = true", 'value = "x"', "value = 9223372036854775807",
    ),
    "ctc": (
        "blank = 1000000", "blank = -1", "blank = 1.5", 'alphabet = ""', "alphabet = []", 'alphabet = ["", ""]', 'alphabet = ["\\u001b[2J"]',
        'alphabet = ["ab", "c"]', 'blank = "a"', "alphabet = [1]",
    ),
    "detection": (
        'kind = "detr"', 'kind = "ssd"', 'kind = "boxes"', 'kind = "fastestdet"', 'kind = "yolox"', 'kind = "yolov5"', "strides = []", "strides = [0]",
        "strides = [1000000000]", "anchors = [[0, 0, 0, 0]]", "anchors = [[0.5, 0.5, 1e300, 1e300]]", "anchors = []", "variances = [0, 0]", "overlap = 1",
        "overlap = 0", "score = 0.999999", "score = 1", 'background = "last"', 'format = "xyxy"', 'format = "yxyx"',
    ),
}  # fmt: skip


def heads(place: Path, seeds: Path, dice: Random) -> Case:
    """[inputs], [head] and [preprocessing] of a recipe, which speak of an ONNX file."""
    bring(place, seeds, "stream", "heads", "steps.npz", "images")
    name = dice.choice(("inputs", "ctc", "detection"))
    file = place / "heads" / f"{name}.toml"
    if dice.random() < 0.5:
        how = dice.choice(_LINES[name])
        key, lines = how.partition(" = ")[0], file.read_text().split("\n")
        kept = [line for line in lines if not line.startswith(f"{key} = ")]
        kept.insert(kept.index(_TABLES[name]) + 1, how)
        file.write_text("\n".join(kept))
    else:
        how = damage(file, dice, damage_toml)
    given = {"calibration_data": "steps.npz", "eval_data": ("steps.npz",), "model": "stream/m.onnx"}
    if name == "detection":
        given = {"calibration_data": "images", "eval_data": ("images",), "model": "heads/yolo.onnx"}
    return f"[head] {name}: {how}", partial(
        probes.export, trace=True, judge=True, calibration_samples=None, recipe=f"heads/{name}.toml", **given
    )


def bundles(place: Path, seeds: Path, dice: Random) -> Case:
    """A bundle whose manifest agrees with the damage, so that what lies behind it is reached."""
    bring(place, seeds, "made/bundle")
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
    how = damage(path, dice, damage_json if path.suffix == ".json" else None)
    if name != "manifest.json" and dice.random() < 0.8 and path.is_file() and path.stat().st_size < 10**8:
        from pipeline.bundle.manifest import read_manifest, write_manifest

        for record in ("artifact.json", "manifest.json"):  # neither lists itself
            (folder / record).unlink(missing_ok=True)
        write_manifest(folder, read_manifest(seeds / "made" / "bundle")["provenance"])
    return f"bundle {name}: {how}", partial(dice.choice((probes.bundle, probes.example)), "made/bundle")


def baselines(place: Path, seeds: Path, dice: Random) -> Case:
    bring(place, seeds, "made/report.json")
    how = damage(place / "made" / "report.json", dice, damage_json)
    return f"baseline: {how}", partial(probes.baseline, "made/report.json")


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
    bring(place, seeds, "bert", "made/bundle", "recipe.toml")
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
