"""The contract of every purifier, and how they are built and chained."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purifiers import (
    PURIFIERS,
    Autoencoder,
    BitDepth,
    Chain,
    Denoiser,
    GuidedDenoiser,
    Jpeg,
    Median,
    Mirror,
    Noise,
    NonLocalMeans,
    PatchSuppression,
    Purifier,
    PurifierError,
    Quantise,
    ResizePad,
    Smooth,
    TotalVariation,
    Wavelet,
    build,
)
from purifiers.base import Purifier as Base
from purifiers.learned import Learned
from tests.untrained import equip

EACH = [
    BitDepth(),
    BitDepth(bits=1),
    Median(),
    Median(size=3),
    Mirror(),
    Jpeg(),
    Jpeg(quality=10, subsample=True),
    Chain([Median(), Jpeg(quality=50), BitDepth()]),
    Denoiser(),
    Autoencoder(),
    GuidedDenoiser(),
    Noise(),
    Noise(sigma=2, draw=1),
    ResizePad(),
    Chain([ResizePad(), Jpeg()]),
    Wavelet(),
    TotalVariation(),
    NonLocalMeans(),
    PatchSuppression(),
    PatchSuppression(threshold=0.5),  # paints over something in most of these images
]
OTHER_KINDS: list[tuple[Purifier, tuple[int, ...]]] = [
    (Quantise(), (5,)),
    (Quantise(step=0.25), (5,)),
    (Quantise(step=1 / 64), (2, 50)),
    (Quantise(digits=1), (1, 50)),
    (Smooth(), (1, 50)),
    (Smooth(size=7, how="mean"), (2, 50)),
    (Chain([Smooth(), Quantise(step=1 / 64)]), (1, 50)),
]
"""With the shape of one sample: a vector's or a waveform's."""


def images(batch: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch + 10 * channels + 100 * height + width)
    return torch.rand(batch, channels, height, width, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("purifier", EACH, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
class TestContract:
    @pytest.fixture(autouse=True)
    def _networks(self, purifier: Purifier, channels: int) -> None:
        equip(purifier, (channels, 16, 16))

    @pytest.mark.parametrize("batch", [0, 1, 2, 7])
    def test_cardinality(self, purifier: Purifier, channels: int, batch: int) -> None:
        x = images(batch, channels, 12, 16)
        y = purifier.purify(x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert batch == 0 or (y.min() >= 0 and y.max() <= 1)

    @pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 9), (28, 28), (31, 33)])
    def test_any_size(self, purifier: Purifier, channels: int, size: tuple[int, int]) -> None:
        x = images(2, channels, *size)
        y = purifier.purify(x)
        assert y.shape == x.shape
        assert torch.isfinite(y).all()

    def test_a_batch_equals_its_samples(self, purifier: Purifier, channels: int) -> None:
        x = (images(7, channels, 13, 11) * 255).round() / 255
        x[2] = 133 / 255  # a flat image: every JPEG coefficient on or next to a tie
        together = purifier.purify(x, seeded())
        generator = seeded()
        alone = torch.cat([purifier.purify(sample[None], generator) for sample in x])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)

    def test_input_unchanged(self, purifier: Purifier, channels: int) -> None:
        x = images(2, channels, 9, 9)
        before = x.clone()
        purifier.purify(x).zero_()
        assert torch.equal(x, before)

    def test_non_contiguous(self, purifier: Purifier, channels: int) -> None:
        x = images(2, channels, 10, 14).permute(0, 1, 3, 2)
        flipped = images(2, 10, 14, channels).permute(0, 3, 1, 2)
        for view in (x, flipped, x[:, :, ::2, 1:]):
            assert not view.is_contiguous() or channels == 1
            torch.testing.assert_close(
                purifier.purify(view, seeded()), purifier.purify(view.contiguous(), seeded())
            )

    def test_deterministic(self, purifier: Purifier, channels: int) -> None:
        x = images(3, channels, 16, 16)
        assert torch.equal(purifier.purify(x, seeded()), purifier.purify(x.clone(), seeded()))

    def test_only_random_ones_draw(self, purifier: Purifier, channels: int) -> None:
        x = images(3, channels, 16, 16)
        generator = seeded()
        first, second = purifier.purify(x, generator), purifier.purify(x, generator)
        assert torch.equal(first, second) != purifier.is_random
        assert torch.equal(generator.get_state(), seeded().get_state()) != purifier.is_random
        assert torch.equal(purifier.purify(x), purifier.purify(x)) != purifier.is_random

    def test_gradients_keep_the_graph(self, purifier: Purifier, channels: int) -> None:
        x = images(2, channels, 16, 16).requires_grad_()
        y = purifier.purify(x, seeded(), gradients=True)
        torch.testing.assert_close(y.detach(), purifier.purify(x.detach(), seeded()))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(gradient).all()

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_black_and_white_stay(self, purifier: Purifier, channels: int, value: float) -> None:
        if any(isinstance(member, Learned) for member in purifier.members):
            pytest.skip("what it was trained on decides")
        if isinstance(purifier, Noise):
            pytest.skip("it adds what it is told to")
        x = torch.full((1, channels, 8, 8), value)
        # The coarsest JPEG here moves levels by up to half its DC step, 80 / 8 / 2 = 5 of 255.
        torch.testing.assert_close(purifier.purify(x), x, atol=5.1 / 255, rtol=0)


@pytest.mark.parametrize(("purifier", "shape"), OTHER_KINDS, ids=repr)
class TestOtherKinds:
    @pytest.mark.parametrize("batch", [0, 1, 2, 7])
    def test_cardinality(self, purifier: Purifier, shape: tuple[int, ...], batch: int) -> None:
        x = samples(batch, shape)
        y = purifier.purify(x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert torch.isfinite(y).all()
        assert len(shape) == 1 or bool((y.abs() <= 1).all())

    def test_a_batch_equals_its_samples(self, purifier: Purifier, shape: tuple[int, ...]) -> None:
        x = samples(7, shape)
        alone = torch.cat([purifier.purify(sample[None]) for sample in x])
        torch.testing.assert_close(purifier.purify(x), alone, atol=1e-6, rtol=0)

    def test_input_unchanged(self, purifier: Purifier, shape: tuple[int, ...]) -> None:
        x = samples(2, shape)
        purifier.purify(x).zero_()
        assert torch.equal(x, samples(2, shape))

    def test_what_is_not_finite_stays_visible(
        self, purifier: Purifier, shape: tuple[int, ...]
    ) -> None:
        x = samples(3, shape)
        x[1].view(-1)[2] = float("nan")
        y = purifier.purify(x)
        assert not torch.isfinite(y[1]).all()
        assert torch.isfinite(y[[0, 2]]).all()

    def test_gradients_keep_the_graph(self, purifier: Purifier, shape: tuple[int, ...]) -> None:
        x = samples(2, shape).requires_grad_()
        y = purifier.purify(x, gradients=True)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(gradient).all()


def samples(batch: int, shape: tuple[int, ...]) -> Tensor:
    """Vectors of any size, or waveforms within full scale."""
    x = torch.randn(batch, *shape, generator=seeded(batch))
    return x.clamp(-1, 1) if len(shape) == 2 else 100 * x


@given(
    st.sampled_from(EACH),
    st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 2**31),
)
def test_shape_and_range_hold(
    purifier: Purifier, shape: tuple[int, int, int, int], seed: int
) -> None:
    equip(purifier, shape[1:])
    x = torch.rand(shape, generator=seeded(seed)).round(decimals=1)
    y = purifier.purify(x, seeded(seed))
    assert y.shape == x.shape
    assert bool(((y >= 0) & (y <= 1)).all())


def test_every_registered_purifier_is_in_the_battery() -> None:
    others = {type(purifier) for purifier, _ in OTHER_KINDS}
    assert {type(p) for p in EACH} | others == {*PURIFIERS.values(), Chain}
    assert all(name == cls.name and issubclass(cls, Base) for name, cls in PURIFIERS.items())


@pytest.mark.parametrize("name", PURIFIERS)
def test_untrained_purifiers_refuse(name: str) -> None:
    purifier = build(name)
    if not isinstance(purifier, Learned):
        pytest.skip("has no network")
    words = f"no weights '{purifier.recipe.name}'; `breakwater fit` makes them"
    with pytest.raises(PurifierError, match=words):
        purifier.purify(images(1, 3, 8, 8))


def test_keys_name_the_parameters() -> None:
    assert build("bit_depth", {"bits": 4}).key == "bit_depth(bits=4)"
    assert build("jpeg", {"quality": 50}).key == "jpeg(quality=50)"
    assert build("jpeg", {"subsample": True}).key == "jpeg(quality=75, subsample=true)"
    assert Chain([Median(), Jpeg()]).key == "median(size=2) > jpeg(quality=75)"


def test_a_chain_applies_its_parts_in_order() -> None:
    x = images(2, 3, 16, 16)
    expected = BitDepth(2).purify(Median().purify(x))
    assert torch.equal(Chain([Median(), BitDepth(2)]).purify(x), expected)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("jpg", {}, "unknown purifier 'jpg'; there are: "),
        ("jpeg", {"q": 5}, r"unknown parameters \['q'\]; there are: quality, subsample"),
        ("median", {"size": 7}, "size must be 2 or 3"),
    ],
)
def test_build_says_what_is_valid(name: str, params: dict[str, int], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        build(name, params)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(PurifierError, match="at least one"):
        Chain([])
