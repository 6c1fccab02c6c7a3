import numpy as np
import pytest

from lvdm_rt.bounds import MAX_SEED
from lvdm_rt.diffusion.noise import FIRST_STEP, START, Site, Stage, draw_rows, philox

SHAPE = (4, 5, 8, 8)
SITE = Site(video=3, stage=Stage.INFILL, clip=7)


def test_a_draw_is_the_documented_function_of_seed_and_site():
    philox_4x64 = np.random.Philox(
        key=np.array([11, 3], np.uint64), counter=np.array([0, 5, 7, 1], np.uint64)
    )
    expected = np.random.Generator(philox_4x64).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(philox(11)(SITE, 5, SHAPE), expected)


def test_the_first_numbers_never_change():
    # A finished video can only be reproduced as long as these stay.
    got = philox(7)(Site(0, Stage.PREDICT, 0), START, (4,))
    np.testing.assert_array_equal(got, np.array(FIRST_NUMBERS, np.float32))


FIRST_NUMBERS = [-1.0433504581451416, 1.1358026266098022, -0.39963191747665405, 1.7852351665496826]


@pytest.mark.parametrize(
    "other",
    [
        lambda: philox(12)(SITE, START, SHAPE),
        lambda: philox(11)(SITE._replace(video=4), START, SHAPE),
        lambda: philox(11)(SITE._replace(stage=Stage.PREDICT), START, SHAPE),
        lambda: philox(11)(SITE._replace(clip=8), START, SHAPE),
        lambda: philox(11)(SITE, FIRST_STEP, SHAPE),
    ],
)
def test_every_part_of_the_site_changes_the_noise(other):
    here = philox(11)(SITE, START, SHAPE)
    correlation = np.corrcoef(here.ravel(), other().ravel())[0, 1]
    assert abs(correlation) < 0.1  # 1280 numbers: 3.6 standard deviations


def test_noise_is_standard_normal():
    noise = philox(0)(SITE, START, (100_000,))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_rows_of_a_batch_do_not_depend_on_each_other():
    sites = [SITE._replace(clip=i) for i in range(3)]
    together = draw_rows(philox(5), sites, START, SHAPE)
    alone = draw_rows(philox(5), sites[1:2], START, SHAPE)
    np.testing.assert_array_equal(together[1], alone[0])


def test_the_largest_seed_is_accepted():
    assert np.isfinite(philox(MAX_SEED)(SITE, START, SHAPE)).all()
