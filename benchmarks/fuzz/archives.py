"""Odd .npz archives."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def _header(text: str, body: bytes = b"") -> bytes:
    data = text.encode()
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + body


def _dict(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


X = np.zeros((20, 8), np.float32)
MEMBERS: dict[str, bytes] = {
    "objects": _npy(np.array([{}, []], dtype=object)),
    "texts": _npy(np.array(["a", "b"])),
    "dates": _npy(np.array(["2020-01-01"], dtype="M8[D]")),
    "complex": _npy(X.astype(np.complex64)),
    "structured": _npy(np.zeros(3, [("a", "f4"), ("b", "i8")])),
    "scalar": _npy(np.float32(1)),
    "no samples": _npy(np.zeros((0, 8), np.float32)),
    "no values": _npy(np.zeros((20, 0), np.float32)),
    "subarray": _npy(np.zeros(3, np.dtype(("f4", (2,))))),
    "nan": _npy(np.full((20, 8), np.nan, np.float32)),
    "half": _npy(X.astype(np.float16)),
    "long double": _npy(X.astype(np.longdouble)),
    "huge shape": _header(_dict("'<f4'", "(1000000000000, 8)")),
    "huge product": _header(_dict("'<f4'", "(4294967296, 4294967296, 4294967296)")),
    "negative shape": _header(_dict("'<f4'", "(-1, 8)")),
    "40 axes": _header(_dict("'|u1'", str((1,) * 80)), b"\0"),
    "shape of texts": _header(_dict("'<f4'", "('a',)")),
    "bad descr": _header(_dict("'<q9'", "(3,)")),
    "descr of lists": _header(_dict("[[]]", "(3,)")),
    "deep descr": _header(_dict("[" * 500 + "]" * 500, "(3,)")),
    "void": _header(_dict("'V0'", "(20, 8)")),
    "huge item": _header(_dict("'|S99999999999999'", "(3,)")),
    "code": _header("__import__('os').system('touch /tmp/escaped')"),
    "no dict": _header("[1]\n"),
    "version 9": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "long header": b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"{" * 1000,
    "cut": _npy(X)[:-7],
    "magic only": b"\x93NUMPY",
    "empty": b"",
    "text": b"hello",
    "labels of floats": _npy(np.zeros(20, np.float32)),
    "huge labels": _npy(np.full(20, 2**63, np.uint64)),
    "negative labels": _npy(np.full(20, -(2**63), np.int64)),
    "labels of two axes": _npy(np.zeros((20, 2), np.int64)),
    "big-endian": _npy(X.astype(">f4")),
}


STEPS: dict[str, dict[str, Any]] = {
    "no steps": {"x": np.zeros((3, 0, 4), np.float32)},
    "no sequences": {"x": np.zeros((0, 5, 4), np.float32)},
    "one step": {"x": np.zeros((1, 4), np.float32)},
    "a state of another size": {"x": np.zeros((3, 5, 4), np.float32), "h": np.zeros((3, 1, 7), np.float32)},
    "a state with steps": {"x": np.zeros((3, 5, 4), np.float32), "h": np.zeros((3, 5, 1, 3), np.float32)},
    "a state of texts": {"x": np.zeros((3, 5, 4), np.float32), "h": np.array(["a", "b", "c"])},
    "integers": {"x": np.zeros((3, 5, 4), np.int64)},
    "nan": {"x": np.full((3, 5, 4), np.nan, np.float32)},
    "huge": {"x": np.full((3, 5, 4), 3e38, np.float32)},
    "five axes": {"x": np.zeros((3, 5, 1, 1, 4), np.float32)},
    "a number": {"x": np.float32(1)},
    "only the state": {"h": np.zeros((3, 1, 3), np.float32)},
    "labels of steps": {"x": np.zeros((3, 5, 4), np.float32), "y": np.zeros((3, 6), np.int64)},
    "unequal lengths": {"x": np.zeros((3, 5, 4), np.float32), "h": np.zeros((2, 1, 3), np.float32)},
    "another input": {"z": np.zeros((3, 5, 4), np.float32)},
    "lengths": {"x": np.zeros((9, 4), np.float32), "lengths": np.array([4, 5])},
    "lengths of another sum": {"x": np.zeros((9, 4), np.float32), "lengths": np.array([4, 50])},
    "negative lengths": {"x": np.zeros((9, 4), np.float32), "lengths": np.array([-4, 13])},
    "lengths of floats": {"x": np.zeros((9, 4), np.float32), "lengths": np.array([4.5, np.nan])},
}


def write_steps(path: Path, dice: Random) -> str:
    """Replace the archive by one whose steps are odd; returns how."""
    how = dice.choice(list(STEPS))
    np.savez(path, **STEPS[how])
    return how


def write(path: Path, dice: Random) -> str:  # noqa: C901  # one line a change
    """Replace the archive by one with an odd member or an odd zip; returns what it is."""
    how = dice.choice(
        (
            *MEMBERS,
            *MEMBERS,
            "encrypted",
            "method",
            "bomb",
            "names",
            "twice",
            "pickle",
            "no arrays",
            "lzma",
            "crc",
            "npy",
        )
    )
    name = dice.choice(("x.npy", "y.npy", "labels.npy", "arr_0.npy"))
    if how in ("pickle", "npy"):
        path.write_bytes(b"\x80\x04K\x01." if how == "pickle" else _npy(X))
        return how
    method = zipfile.ZIP_LZMA if how == "lzma" else zipfile.ZIP_DEFLATED if how == "bomb" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as file:
        if how in MEMBERS:
            file.writestr(name, MEMBERS[how])
        if how == "bomb":
            with file.open("x.npy", "w", force_zip64=True) as member:
                member.write(_header(_dict("'<f4'", f"({10**9 * 4 // 32}, 8)")))
                for _ in range(400):
                    member.write(b"\0" * 10_000_000)
        if how == "names":
            file.writestr(dice.choice(("../x.npy", "/x.npy", "a\x1b[2J.npy", "x", "[red].npy", "\u202ex.npy")), _npy(X))
        if how == "no arrays":
            return how
        if how != "bomb" and (name != "x.npy" or how not in MEMBERS):
            file.writestr("x.npy", _npy(X))
        if how == "twice":
            import warnings

            with warnings.catch_warnings(action="ignore"):
                file.writestr("x.npy", _npy(X))
    data = bytearray(path.read_bytes())
    central = data.rfind(b"PK\x01\x02")
    if how == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    if how == "method":
        data[8] = data[central + 10] = dice.choice((1, 6, 9, 12, 97, 99))
    if how == "crc":
        data[central + 16] ^= 255
    path.write_bytes(bytes(data))
    return f"{how} as {name}"
