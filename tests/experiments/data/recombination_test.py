"""Amplitude-phase recombination against numpy's transform in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.data import DataConfig
from experiments.data import load_dataset
from experiments.data.augment import Part
from experiments.data.recombination import random_copies, random_pairs, recombine

IMAGES = np.random.default_rng(0).normal(size=(12, 8, 8, 3)).astype(np.float32)


def by_numpy(phases, amplitudes):
    one, other = (np.fft.fftn(x.astype(np.float64), axes=(1, 2, 3)) for x in (phases, amplitudes))
    return np.fft.ifftn(np.abs(other) * np.exp(1j * np.angle(one)), axes=(1, 2, 3)).real


def test_is_numpys():
    mixed = recombine(jnp.asarray(IMAGES), jnp.asarray(IMAGES[::-1]))
    np.testing.assert_allclose(mixed, by_numpy(IMAGES, IMAGES[::-1]), atol=1e-5)
    flat = jnp.zeros((1, 8, 8, 3))  # no phases at all
    assert np.isfinite(recombine(flat, jnp.asarray(IMAGES[:1]))).all()


def test_pairs_exchange_amplitudes_within_the_batch():
    amplitudes = np.abs(np.fft.fftn(IMAGES, axes=(1, 2, 3))).reshape(12, -1)
    mixed = 0
    for seed in range(30):
        out = np.asarray(random_pairs(jax.random.key(seed), jnp.asarray(IMAGES)))
        if np.array_equal(out, IMAGES):
            continue
        mixed += 1
        found = np.abs(np.fft.fftn(out, axes=(1, 2, 3))).reshape(12, -1)
        nearest = np.square(found[:, None] - amplitudes[None]).sum(-1).argmin(1)
        assert sorted(nearest) == list(range(12))
    assert 10 <= mixed <= 26  # of 30, with probability 0.6: 99.9 %


def test_copies_do_not_depend_on_how_the_batch_is_split():
    key, copies = jax.random.key(0), jnp.asarray(IMAGES[:, :, ::-1])
    whole = random_copies(key, jnp.asarray(IMAGES), copies)
    parts = [
        random_copies(key, jnp.asarray(x), y, Part(i, 2))
        for i, (x, y) in enumerate(zip(np.split(IMAGES, 2), np.split(copies, 2), strict=True))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    unchanged = np.all(np.isclose(whole, IMAGES), (1, 2, 3)).sum()
    assert 1 <= unchanged <= 11


def test_on_the_command_line():
    plain, mixed = (
        load_dataset(DataConfig(augment=names, max_shift=0)) for names in ((), ("apr-p", "apr-s"))
    )
    key = jax.random.key(3)
    images = plain.train_images[:20]
    assert not np.allclose(plain.augment(key, images), mixed.augment(key, images))
    np.testing.assert_array_equal(mixed.standardize(images), plain.standardize(images))
    assert mixed.record()["recombination"] == ["apr-p", "apr-s"]
    assert "recombination" not in plain.record()
    with pytest.raises(ValueError, match=r"`augment` \(='apr'\) is unknown.*Did you mean apr-"):
        DataConfig(augment=("apr",))
