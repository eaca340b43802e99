"""Odd images and recordings."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image


def _png(width: int, height: int, body: bytes = b"\0", depth: int = 8, kind: int = 2) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _saved(mode: str, form: str, size: tuple[int, int] = (10, 12)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


def _animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (10, 12), number) for number in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


IMAGES: dict[str, bytes] = {
    "bomb": _png(60000, 60000, b"\0" * 100000),
    "wide bomb": _png(178_000_000, 1),
    "huge": _png(2**31 - 1, 2**31 - 1),
    "no size": _png(0, 0),
    "no rows": _png(10, 0),
    "one pixel": _saved("RGB", "PNG", (1, 1)),
    "one row": _saved("RGB", "PNG", (4000, 1)),
    "odd depth": _png(10, 12, depth=3),
    "odd kind": _png(10, 12, kind=9),
    "cut": _saved("RGB", "PNG")[:-30],
    "bad zlib": _png(10, 12)[:-20] + b"x" * 8,
    "CMYK": _saved("CMYK", "JPEG"),
    "16 bits": _saved("I;16", "PNG"),
    "float": _saved("F", "TIFF"),
    "palette": _saved("P", "PNG"),
    "bits": _saved("1", "PNG"),
    "alpha": _saved("RGBA", "PNG"),
    "grey and alpha": _saved("LA", "PNG"),
    "animated": _animated(),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/escaped) (w) file closefile\n",
    "text chunk bomb": _saved("RGB", "PNG")[:33]
    + struct.pack(">I", 12)
    + b"zTXtabcdefghijkl"
    + b"\0" * 4
    + _saved("RGB", "PNG")[33:],
    "icns": b"icns" + b"\xff" * 60,
    "bmp of negative size": b"BM"
    + b"\0" * 12
    + struct.pack("<IiiHHIIiiII", 40, -10, -2147483648, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp of huge size": b"BM"
    + b"\0" * 12
    + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "webp of zeros": b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 20,
}


def write(path: Path, dice: Random) -> str:
    how = dice.choice(list(IMAGES))
    path.write_bytes(IMAGES[how])
    return how


def write_wav(path: Path, dice: Random) -> str:
    """A recording whose header is odd; returns how."""
    fields = {"format": 1, "channels": 1, "rate": 16000, "bits": 16, "claimed": 800, "body": 800}
    how = dice.choice(list(fields))
    odd = {"format": (0, 3, 6, 65534, 65535), "channels": (0, 2, 3, 65535), "rate": (0, 1, 2**32 - 1, 44100), "bits": (0, 1, 8, 12, 24, 32, 64, 65535),
           "claimed": (0, 1, 799, 801, 2**31, 2**32 - 1), "body": (0, 1, 3, 799, 5000)}  # fmt: skip
    fields[how] = dice.choice(odd[how])
    bytes_each = fields["bits"] // 8 * fields["channels"]
    form = struct.pack(
        "<HHIIHH", fields["format"] & 65535, fields["channels"], fields["rate"], 0, bytes_each & 65535, fields["bits"]
    )
    body = np.arange(fields["body"], dtype=np.uint8).tobytes()
    data = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", fields["claimed"]) + body
    path.write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    return f"{how} {fields[how]}"
