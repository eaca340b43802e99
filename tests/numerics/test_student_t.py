"""Student's t: textbook values, and scipy's."""

import pytest
from scipy.special import stdtr, stdtrit

from pipeline.numerics.student_t import central_share, student_t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (30, 2.0423)]
)
def test_the_table_of_textbooks(degrees: int, expected: float) -> None:
    assert student_t_quantile(0.975, degrees) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("degrees", [*range(1, 40), 99, 100, 399, 2000])
@pytest.mark.parametrize("share", [0.5, 0.75, 0.975, 0.9975, 0.99995])
def test_equals_scipy(degrees: int, share: float) -> None:
    assert student_t_quantile(share, degrees) == pytest.approx(float(stdtrit(degrees, share)), rel=1e-9, abs=1e-12)


def test_a_share_of_one_degree_is_the_angle() -> None:
    assert central_share(0.5, 1) == pytest.approx(2 * 0.5 / 3.141592653589793)
    assert central_share(0.7, 7) == pytest.approx(2 * float(stdtr(7, 7**0.5 * 0.8422883804630794)) - 1)


@pytest.mark.parametrize(("share", "degrees"), [(1.0, 3), (0.4, 3), (0.9, 0)])
def test_refuses_what_has_no_quantile(share: float, degrees: int) -> None:
    with pytest.raises(ValueError, match="there is no quantile"):
        student_t_quantile(share, degrees)
