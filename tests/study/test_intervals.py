"""Confidence intervals against what is known of them."""

import numpy as np
import pytest

from lava_casc.study import interval, jackknife


@pytest.mark.parametrize(
    ("right", "samples", "expected"),
    [(8, 10, (0.4902, 0.9433)), (0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0)), (500, 1000, (0.4691, 0.5309))],
)
def test_the_interval_of_a_share_is_wilsons(right, samples, expected):
    assert interval(right, samples) == pytest.approx(expected, abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(right, samples, 0.5)[0] >= interval(right, samples)[0]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).random(20)
    low, high = jackknife(lambda chosen: float(values[chosen].mean()), 20)
    error = values.std(ddof=1) / np.sqrt(20)
    assert (high - low) / 2 == pytest.approx(1.959964 * error)
    assert (high + low) / 2 == pytest.approx(values.mean())


def test_many_samples_are_left_out_in_groups():
    values = (np.random.default_rng(1).random(4000) < 0.7).astype(float)
    asked = []

    def score(chosen):
        asked.append(len(chosen))
        return float(values[chosen].mean())

    low, high = jackknife(score, 4000)
    assert asked == [4000] + [3800] * 20
    wilson = interval(int(values.sum()), 4000)
    assert high - low == pytest.approx(wilson[1] - wilson[0], rel=0.4)


def test_a_score_without_meaning_has_no_interval():
    assert jackknife(lambda chosen: None, 30) is None
    assert jackknife(lambda chosen: 0.5, 1) is None
    assert jackknife(lambda chosen: 1.0, 30) == (1.0, 1.0)
