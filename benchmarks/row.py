"""A published figure: what it is, how it is measured, and what it stands beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A value, and the reference's value from the same run."""

    value: float
    reference: float


@dataclass(frozen=True)
class Row:
    """`reference` says in words what `reference_value` is."""

    id: str
    unit: str
    reference: str
    measure: Callable[[], Measured]
