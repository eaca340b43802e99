"""Damage without knowledge of a kind: to bytes, to a JSON tree, to lines, and to what a file is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 2**31, 10**9, -(10**12), 10**18, 10**40, 1e308, -0.5, "", "x", "x" * 5000, "[red]x[/red]",
    "\x1b[2J", "\u202egnp.exe", "../../etc/passwd", "/dev/zero", "a\0b", "\ud800", "0", "1e9", [], {}, [[]], [None], [10**12],
    {"": None}, ["x", 1], {"a": {"b": []}}, "NaN", "Infinity",
)  # fmt: skip
"""Values that a reader may not expect where it reads a tree."""
RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "1" * 5000,
    "[" * 5000,
    "[" * 200 + "]" * 200,
    '{"a":' * 3000,
    "'single'",
    "tru",
    "",
)


def damage_bytes(data: bytes, dice: Random) -> bytes:
    """Flips, cuts, repeats, insertions, zeros or nothing left."""
    kind = dice.randrange(8)
    place = dice.randrange(len(data) + 1)
    length = dice.choice((1, 2, 4, 16, 200))
    if kind <= 2:
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 3, 20)) if data else 0):
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return bytes(changed)
    if kind == 3:
        return data[:place]
    if kind == 4:
        return data[:place] + dice.randbytes(length) + data[place:]
    if kind == 5:
        return data[:place] + b"\xff" * length + data[place + length :]
    if kind == 6:
        return data[:place] + data[place // 2 : place] + data[place:]
    return dice.choice(
        (b"", b"\0", b"\0" * 1000, dice.randbytes(300), b"{}", b"[]", b"null", b"\xff\xfe" + data, data + data)
    )


def damage_json(text: str, dice: Random) -> str:
    """One value, somewhere in the tree, becomes another; or a key goes, or comes twice."""
    tree = json.loads(text)
    places = list(_places(tree, ()))
    place = dice.choice(places)
    if dice.random() < 0.2:
        marked = json.dumps(_put(tree, place, "@@here@@"))
        return marked.replace('"@@here@@"', dice.choice(RAW))
    if place and dice.random() < 0.25:
        return json.dumps(_drop(tree, place))
    return json.dumps(_put(tree, place, dice.choice(NASTY)))


def _places(tree: Any, at: tuple[Any, ...]) -> Any:
    yield at
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:20]) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _places(value, (*at, key))


def _put(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[place[0]] = _put(changed[place[0]], place[1:], value)
    return changed


def _drop(tree: Any, place: tuple[Any, ...]) -> Any:
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    if len(place) == 1:
        del changed[place[0]]
    else:
        changed[place[0]] = _drop(changed[place[0]], place[1:])
    return changed


TOML_VALUES = (
    "1", "-1", "0", "1e400", "nan", "inf", "9" * 30, "9" * 5000, "true", '""', '"x"', '"../../../x"', '"\\u0000"', '"\\u001b[2J"',
    "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27", "[]", "{}", "[[]]", "[1, 'a']", "[" * 3000, "[" * 200 + "]" * 200,
    "{ a = { b = 1 } }", "'''x", '"' + "x" * 100000 + '"', "0x" + "f" * 40, "1_0.5_0", "-0.0", "[nan]", '"[red]x[/red]"',
)  # fmt: skip


def damage_toml(text: str, dice: Random) -> str:
    """One value or one line becomes another."""
    lines = text.split("\n")
    place = dice.choice([number for number, line in enumerate(lines) if line.strip()])
    key, equals, _ = lines[place].partition(" = ")
    kind = dice.randrange(6)
    if equals and kind <= 2:
        lines[place] = f"{key} = {dice.choice(TOML_VALUES)}"
    elif kind == 3:
        del lines[place]
    elif kind == 4:
        lines.insert(
            place,
            dice.choice((lines[place], "unknown = 1", "[" + "a." * 2000 + "b]", "a." * 3000 + "a = 1", "[[x]]", "\0")),
        )
    else:
        lines[place] = damage_bytes(lines[place].encode(), dice).decode("utf-8", "replace")
    return "\n".join(lines)


def special_file(path: Path, dice: Random) -> str:
    """Put what is no plain file of a sensible size where one was; returns what it is."""
    kind = dice.choice(
        ("zero", "fifo", "folder", "loop", "dangling", "sparse", "long line", "random device", "missing")
    )
    path.unlink()
    if kind in ("zero", "random device"):
        path.symlink_to("/dev/zero" if kind == "zero" else "/dev/urandom")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(100 * 10**9)
    elif kind == "long line":
        path.write_bytes(b"x" * 20_000_000)
    return kind
