from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.sketch import SIZE
from proxy.history.fingerprints import CONTENT, KEYS, PERCEPTUAL, Fingerprinter, Prints
from tests.detectors.test_perceptual_fingerprint import pictures

STEADY, SALT, LAST = b"s" * 32, b"a" * 32, b"b" * 32
X = pictures(7, 3, 32, seed=0)
NONE = torch.zeros(len(X))


def fingerprinter(*salts: bytes) -> Fingerprinter:
    return Fingerprinter(STEADY, lambda: salts or (SALT,))


def in_common(a: Prints, b: Prints) -> list[int]:
    """Keys of looks and content that inputs share, row by row."""
    pairs = zip(a.keys[0, :, :-1], b.keys[0, :, :-1], strict=True)
    return [len(set(own[own != 0].tolist()) & set(other.tolist())) for own, other in pairs]


def test_the_shapes_and_types_are_those_of_the_stores() -> None:
    prints = fingerprinter(SALT, LAST)(X, torch.arange(7.0))
    assert KEYS == CONTENT + PERCEPTUAL + 1
    assert prints.keys.shape == (2, 7, KEYS)
    assert prints.sketch.shape == (7, SIZE)
    assert prints.digest.shape == prints.anomaly.shape == (7,)
    types = [each.dtype for each in (prints.keys, prints.sketch, prints.digest)]
    assert types == [np.uint64, np.int16, np.uint64]
    assert prints.anomaly.tolist() == list(range(7))
    assert prints.keys[:, :, :-1].all()


def test_a_batch_equals_its_samples() -> None:
    subject = fingerprinter(SALT, LAST)
    whole = subject(X, NONE)
    for row in range(len(X)):
        alone = subject(X[row : row + 1], NONE[:1])
        part = whole[row : row + 1]
        assert np.array_equal(alone.keys, part.keys)
        assert np.array_equal(alone.sketch, part.sketch)
        assert np.array_equal(alone.digest, part.digest)
        assert np.array_equal(alone.anomaly, part.anomaly)


def test_replicas_agree() -> None:
    a, b = fingerprinter()(X, NONE), fingerprinter()(X.clone(), NONE)
    assert np.array_equal(a.keys, b.keys)
    assert np.array_equal(a.sketch, b.sketch)
    assert np.array_equal(a.digest, b.digest)


def test_an_epoch_changes_the_keys_and_nothing_else() -> None:
    salts = [SALT]
    subject = Fingerprinter(STEADY, lambda: tuple(salts))
    before = subject(X, NONE)
    salts[:] = [LAST, SALT]
    after = subject(X, NONE)
    assert np.array_equal(after.keys[1], before.keys[0])
    assert in_common(after, before) == [0] * len(X)
    assert np.array_equal(after.sketch, before.sketch)
    assert np.array_equal(after.digest, before.digest)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 0.5 / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)),
        lambda x: x * 0.9,
        lambda x: torch.cat((x[..., :1], x[..., :1], x[..., :-2]), dim=3),
    ],
    ids=["noise", "darker", "shift"],
)
def test_alike_images_share_keys_and_others_do_not(change: Callable[[Tensor], Tensor]) -> None:
    changed = change(X).clamp(0, 1)
    subject = fingerprinter()
    found = subject(X, NONE)
    assert sum(shared > 0 for shared in in_common(found, subject(changed, NONE))) >= 6
    assert in_common(found, subject(X.roll(1, 0), NONE)) == [0] * len(X)
    assert not (found.digest == subject(changed, NONE).digest).any()


def test_the_owner_is_one_more_key_and_never_the_one_not_used() -> None:
    prints = fingerprinter(SALT, LAST)(X, NONE)
    assert not prints.keys[:, :, -1].any()
    owned = prints.of(2**64 - 1)
    assert (owned.keys[:, :, -1] == 2**64 - 1).all()
    assert np.array_equal(owned.keys[:, :, :-1], prints.keys[:, :, :-1])
    assert not prints.keys[:, :, -1].any()  # the same prints may be another's
    assert prints.of(0).keys[:, :, -1].all()


def test_no_inputs_have_no_prints() -> None:
    prints = fingerprinter()(X[:0], NONE[:0])
    assert prints.keys.shape == (1, 0, KEYS)
    assert prints.digest.shape == (0,)
