"""Noise against SplitMix64 in Python's numbers, draws against a loop over tokens."""

import numpy as np
import pytest
import torch
from scipy import stats

from negdistill.inference.rng import draw, noise, row_key


def splitmix(state, position):
    """SplitMix64 with Python's numbers."""
    mask = 2**64 - 1
    x = (state + position * 0x9E3779B97F4A7C15) & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return ((x ^ (x >> 31)) >> 11) / 2**53


def test_noise_is_splitmix():
    keys = [row_key(0, "q", i) for i in range(50)] + [0, 1, -1, 2**63 - 1, -(2**63)]
    for position in (0, 1, 2, 1000):
        found = noise(torch.tensor(keys), torch.full((len(keys),), position))
        assert found.tolist() == [splitmix(key, position) for key in keys]


def test_noise_is_even_and_unlike_in_seed_prompt_sample_and_position():
    keys = [row_key(s, f"q{p}", i) for s in range(4) for p in range(25) for i in range(4)]
    assert len(set(keys)) == 400
    u = torch.stack([noise(torch.tensor(keys), torch.full((400,), t)) for t in range(50)])
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    for one, other in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u[:, :-100], u[:, 100:])):
        assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.03
    assert row_key(1, "1", 2) != row_key(1, "2", 1) and row_key(0, "\ud800", 0) != row_key(0, "", 0)


def reference(logits, u, temperature):
    """One row, token by token."""
    p = np.exp(logits / temperature - (logits / temperature).max())
    p /= p.sum()
    below = 0.0
    for k, value in enumerate(p):
        below += value
        if below > u * p.sum():
            return k
    raise AssertionError


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0, 0.1])
def test_draw_equals_the_loop(temperature):
    random = np.random.default_rng(0)
    logits, u = random.normal(size=(300, 23)) * 2, random.random(300)
    token, log_prob = draw(torch.tensor(logits), torch.tensor(u), temperature)
    assert token.tolist() == [reference(*row, temperature) for row in zip(logits, u, strict=True)]
    exact = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(log_prob, exact[np.arange(300), token], rtol=1e-12)


def test_draw_at_the_edges():
    logits = torch.tensor([[0.0, 0.0, 1.0, 1.0, -torch.inf]])
    u = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, u)[0].item() == 3  # never a token of probability 0, whatever u is
    assert draw(logits, u * 0)[0].item() == 0
    token, log_prob = draw(logits, u, temperature=0)
    assert token.item() == 2  # the first of equals
    assert log_prob.item() == pytest.approx(1 - np.log(2 + 2 * np.e), abs=1e-6)
