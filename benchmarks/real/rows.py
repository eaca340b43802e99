"""Rows `real.*`: how many models end right, and each beside the faster of ONNX Runtime's own two files."""

from __future__ import annotations

from functools import partial

from benchmarks.real.models import MODELS
from benchmarks.real.run import Result, result
from benchmarks.row import Measured, Row

_ASKED = 16


def passing() -> Measured:
    """Models whose verdict the judge confirms, beside how many there are."""
    return Measured(float(sum(result(name).passing for name in MODELS)), float(len(MODELS)))


def total() -> Measured:
    return Measured(float(len(MODELS)), float(_ASKED))


def sqnr_gain_db(name: str) -> Measured:
    """Decibels over the peer's SQNR, beside the peer's own."""
    found, peer = _beside(name)
    return Measured(found.sqnr_db - peer["sqnr_db"], peer["sqnr_db"])


def size_ratio(name: str) -> Measured:
    """The model's bytes over the peer's, beside the peer's MB."""
    found, peer = _beside(name)
    return Measured(found.mb / peer["mb"], peer["mb"])


def speed_ratio(name: str) -> Measured:
    """The peer's time over the bundle's, beside the peer's speed over the given file's."""
    _, peer = _beside(name)
    return Measured(peer["ours"], peer["speed"])


def _beside(name: str) -> tuple[Result, dict[str, float]]:
    found = result(name)
    if found.peer is None:
        raise ValueError(f"{name}: exit {found.code}, peers {list(found.peers)}: {found.message}")
    return found, found.peers[found.peer]


def of_model(name: str) -> list[Row]:
    peer = "the faster of quantize_static and quantize_dynamic"
    return [
        Row(f"real.{name}.sqnr_gain_db", "dB", f"{peer}, dB", partial(sqnr_gain_db, name)),
        Row(f"real.{name}.size_ratio", "x", f"{peer}, MB", partial(size_ratio, name)),
        Row(f"real.{name}.speed_ratio", "x", f"{peer}, over the given file (same run)", partial(speed_ratio, name)),
    ]


OF_ALL = [
    Row("real.passing", "models", "models tried", passing),
    Row("real.total", "models", "asked for", total),
]
ROWS = [
    *OF_ALL,
    *(row for name, model in MODELS.items() if model.compared for row in of_model(name)),
]
