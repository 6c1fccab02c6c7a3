import numpy as np
import pytest

from lvdm_engines.errors import DeviceMemoryError
from lvdm_rt.long.network import EXACT_ROWS, Network
from lvdm_rt.model import Model


@pytest.fixture
def model(manifest, sessions):
    return Model(manifest, sessions)


def feeds(rows):
    rng = np.random.default_rng(rows)
    return {
        "latents": rng.standard_normal((rows, 2, 4, 4, 4), dtype=np.float32),
        "timestep": np.full(rows, 3),
        "mask": np.zeros((rows, 4), np.float32),
        "noise_level": np.full(rows, -1),
        "something": np.zeros(1),
    }


def test_a_batch_that_does_not_fit_is_halved_and_stays_halved(sessions, model):
    session = sessions["predict"]
    whole = Network(model, "predict", exact=False)(feeds(6))
    session.rows.clear()
    session.most = 3
    network = Network(model, "predict", exact=False)
    np.testing.assert_array_equal(network(feeds(6)), whole)
    np.testing.assert_array_equal(network(feeds(6)), whole)
    assert session.rows == [6, 3, 3, 3, 3]


def test_a_batch_is_halved_until_it_fits_and_a_size_that_does_is_named(sessions, model, caplog):
    session = sessions["predict"]
    whole = Network(model, "predict", exact=False)(feeds(64))
    session.rows.clear()
    session.most = 9
    network = Network(model, "predict", exact=False)
    np.testing.assert_array_equal(network(feeds(64)), whole)
    assert session.rows[:4] == [64, 32, 16, 8]
    assert set(session.rows[3:]) == {8}
    assert "going on with 8 rows per network call, which --batch-size 2 is sure" in caplog.text


def test_rows_that_fit_once_and_not_later_are_halved_again(sessions, model):
    session = sessions["predict"]
    network = Network(model, "predict", exact=False)
    network(feeds(8))
    for most in (4, 1):
        session.most = most
        session.rows.clear()
        network(feeds(8))
        assert session.rows[-1] == most


@pytest.mark.parametrize("exact", [False, True])
def test_one_clip_that_does_not_fit_is_not_blamed_on_the_batch_size(sessions, model, exact):
    session = sessions["predict"]
    session.most = 0
    with pytest.raises(DeviceMemoryError, match="close other programs, or use a smaller model"):
        Network(model, "predict", exact=exact)(feeds(1))


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_exact_calls_have_the_same_rows_whatever_the_batch(sessions, model, rows):
    session = sessions["predict"]
    session.jitter = True
    together = Network(model, "predict", exact=True)(feeds(rows))
    assert set(session.rows) == {EXACT_ROWS}
    for row in range(rows):
        one = {name: array[row : row + 1] for name, array in feeds(rows).items()}
        np.testing.assert_array_equal(Network(model, "predict", exact=True)(one)[0], together[row])
