from __future__ import annotations

import math

import numpy as np

from pipeline.numerics.noise import noise_power, power, sqnr_db


def test_decibels_worked_by_hand() -> None:
    assert sqnr_db(1000.0, 1.0) == 30.0
    assert sqnr_db(1.0, 1.0) == 0.0
    assert sqnr_db(1.0, 0.0) == math.inf
    assert sqnr_db(0.0, 1.0) == -math.inf


def test_power_does_not_overflow_float32() -> None:
    assert power(np.float32([3e19, 4e19])) == float(np.float32(3e19)) ** 2 + float(np.float32(4e19)) ** 2


def test_noise_is_what_differs() -> None:
    exact = np.float32([1, 2, np.inf, np.nan])
    assert noise_power(exact, np.float32([1, 4, np.inf, np.nan])) == 4.0
    assert noise_power(exact[:2], exact[:3]) == 5.0  # another number of detections: nothing is kept
    assert noise_power(exact[:2], np.float32([np.nan, 2])) == 5.0
