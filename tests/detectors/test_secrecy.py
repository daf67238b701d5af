from __future__ import annotations

import torch

from detectors.secrecy import Secrecy

NAMES = [f"detector_{i}" for i in range(10)]


def test_the_same_secret_gives_the_same_weights_in_any_order() -> None:
    weights = Secrecy(b"key", 1).weights(NAMES)
    assert torch.equal(weights, Secrecy(b"key", 1).weights(NAMES))
    assert torch.equal(weights.flip(0), Secrecy(b"key", 1).weights(NAMES[::-1]))


def test_key_and_epoch_change_them() -> None:
    weights = Secrecy(b"key", 1).weights(NAMES)
    assert not torch.equal(weights, Secrecy(b"other", 1).weights(NAMES))
    assert not torch.equal(weights, Secrecy(b"key", 2).weights(NAMES))


def test_the_share_kept_and_the_range() -> None:
    for epoch in range(50):
        weights = Secrecy(b"key", epoch, keep=0.6).weights(NAMES)
        kept = weights[weights > 0]
        assert len(kept) == 6
        assert bool(((kept >= 0.5) & (kept <= 1.5)).all())
    assert int((Secrecy(b"key", 0, keep=0.01).weights(NAMES) > 0).sum()) == 1
    assert Secrecy(b"key", 0).weights([]).shape == (0,)


def test_over_epochs_every_detector_has_its_turn() -> None:
    epochs = torch.stack([Secrecy(b"key", epoch).weights(NAMES) for epoch in range(200)])
    kept = (epochs > 0).float().mean(0)
    assert bool(((kept > 0.55) & (kept < 0.85)).all())
