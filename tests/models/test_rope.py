import numpy as np

from models.catalog import catalog
from models.rope import frequencies, rope_angles


def test_the_first_position_is_not_turned() -> None:
    table = rope_angles(4, 8, 10_000.0)
    assert table[0].tolist() == [[32768] * 4, [0] * 4]
    assert table[1, 0, 0] == round(np.cos(1.0) * 32768)


def test_llama_3_1_slows_only_the_slow_pairs() -> None:
    config = catalog("llama-3.1-8b")
    plain = frequencies(128, config.rope_theta)
    scaled = frequencies(128, config.rope_theta, config.rope_scaling)
    ratio = scaled / plain
    wavelength = 2 * np.pi / plain
    assert np.all(ratio[wavelength < 8192 / 4] == 1)
    assert np.allclose(ratio[wavelength > 8192], 1 / 8)
    assert np.all(np.diff(ratio) <= 1e-12)
