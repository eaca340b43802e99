from __future__ import annotations

import math

import numpy as np

from pipeline.numerics.noise import power, sqnr_db


def test_decibels_worked_by_hand() -> None:
    assert sqnr_db(1000.0, 1.0) == 30.0
    assert sqnr_db(1.0, 1.0) == 0.0
    assert sqnr_db(1.0, 0.0) == math.inf
    assert sqnr_db(0.0, 1.0) == -math.inf


def test_power_does_not_overflow_float32() -> None:
    assert power(np.float32([3e19, 4e19])) == float(np.float32(3e19)) ** 2 + float(np.float32(4e19)) ** 2
