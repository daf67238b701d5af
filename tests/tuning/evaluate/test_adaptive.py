from __future__ import annotations

import pytest
import torch
from torch import Tensor

from purifiers import BitDepth, Chain, Median, Noise
from tuning.evaluate.adaptive import Response, attack, judge
from tuning.evaluate.confrontation import confront
from tuning.evaluate.targets import Guarded, Provoked, Through, Undefended, Watch

LEFT = torch.zeros(1, 4, 4).index_fill_(2, torch.tensor([0, 1]), 1.0)
"""Half of a 4x4 image: 8 pixels."""


def model(x: Tensor) -> Tensor:
    """Class 1 where the mean of a grey image is over one half."""
    excess = (x - 0.5).flatten(1).sum(1)
    return torch.stack((-excess, excess), dim=1)


class Alarmed:
    """Flags images whose left half is brighter than 0.49; the right half goes unseen."""

    is_random = False

    def __call__(self, x: Tensor) -> Response:
        return Response(model(x), ((x * LEFT).flatten(1).sum(1) / 8 - 0.49) * 100)


def images(level: int = 124, count: int = 3) -> tuple[Tensor, Tensor]:
    """Flat images of one grey level, class 0."""
    return torch.full((count, 1, 4, 4), level / 255), torch.zeros(count, dtype=torch.int64)


def test_plain_attack_wins_where_arithmetic_says_so() -> None:
    x, y = images()  # 16 pixels of 124/255: each must rise to 128/255 to pass 127.5
    assert (
        judge(
            Undefended(model), attack(Undefended(model), x, y, eps=3 / 255, steps=20), y
        ).won.sum()
        == 0
    )
    made = attack(Undefended(model), x, y, eps=4 / 255, steps=20)
    assert judge(Undefended(model), made, y).won.sum() == 3


def test_joint_loss_wins_where_the_plain_attack_is_flagged() -> None:
    # All pixels at 120 + 16: wrong, but the left half at 136/255 = 0.53 is flagged. It must stay at
    # 124/255 or below, and the right half makes up for it: (124 + 136) / 2 = 130 > 127.5.
    x, y = images(120)
    plain = attack(Undefended(model), x, y, eps=16 / 255, steps=20)
    assert (plain - x > 15.5 / 255).all() or judge(Alarmed(), plain, y).won.sum() < 3
    made = attack(Alarmed(), x, y, eps=16 / 255, steps=40)
    outcome = judge(Alarmed(), made, y)
    assert outcome.won.tolist() == [1, 1, 1]
    assert outcome.won.equal(outcome.wrong * outcome.quiet)


@pytest.mark.parametrize("eps", [1 / 255, 5 / 255])
def test_images_are_files_within_the_bound(eps: float) -> None:
    x, y = images(254)
    made = attack(Alarmed(), x, y, eps=eps, steps=5)
    assert made.mul(255).sub(made.mul(255).round()).abs().max() < 1e-4
    assert (made - x).abs().max() <= eps + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1


def test_a_score_that_is_not_finite_is_no_pass() -> None:
    class Broken(Alarmed):
        def __call__(self, x: Tensor) -> Response:
            return Response(model(x), super().__call__(x).suspicion * torch.nan)

    x, y = images()
    made = attack(Broken(), x, y, eps=8 / 255, steps=20)
    assert made.isfinite().all()
    outcome = judge(Broken(), made, y)
    assert outcome.wrong.sum() == 3
    assert outcome.won.sum() == 0


def gradient(through: Through, x: Tensor, weights: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((through(x) * weights).sum(), x)
    return found


def test_rounding_has_the_gradient_of_the_identity() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.rand(2, 2, 1, 8, 8, generator=generator)
    rounded = Through(BitDepth(3), generator)
    assert rounded(x).equal(BitDepth(3).purify(x))
    assert gradient(rounded, x, weights).equal(weights)


def test_a_median_has_its_own_gradient_also_behind_a_rounding() -> None:
    generator = torch.Generator().manual_seed(2)
    x, weights = torch.rand(2, 2, 1, 8, 8, generator=generator)
    own = gradient(Through(Median(3), generator), x, weights)
    assert own.ne(weights).any()
    assert own.sum() == pytest.approx(float(weights.sum()), rel=1e-5)  # a median selects
    chained = gradient(Through(Chain([BitDepth(8), Median(3)]), generator), x, weights)
    assert chained.ne(weights).any()
    assert chained.any()
    straight = gradient(Through(Median(3), generator, identity=True), x, weights)
    assert straight.equal(weights)


def test_random_targets_are_judged_over_several_draws() -> None:
    through = Through(Noise(40), torch.Generator().manual_seed(3))
    target = Undefended(lambda x: model(x[:, :, :1, :1]), through)  # one pixel: noise decides
    assert target.is_random
    x, y = images(125, 20)
    shares = judge(target, x, y).won
    assert 0 < float(shares.mean()) < 1
    made = attack(target, x, y, eps=16 / 255, steps=10)
    assert judge(target, made, y).won.mean() > shares.mean()


class Half:
    """A watch over `model` that flags what `Alarmed` flags."""

    is_random = False
    model = staticmethod(model)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        response = Alarmed()(x)
        return response.answers, response.suspicion


def test_the_way_through_a_purifier_is_to_be_flagged() -> None:
    x, y = images(120)
    through = Through(BitDepth(8), torch.Generator())
    watch = Half()
    provoked = Provoked(watch, through)  # type: ignore[arg-type]
    made = attack(provoked, x, y, eps=16 / 255, steps=20)
    assert judge(provoked, made, y).won.sum() == 3
    assert watch(made)[1].min() >= 0


def test_a_defence_is_compared_on_all_images_of_both() -> None:
    x, y = images()
    bare = Undefended(model)
    met = confront([Alarmed()], bare, x, y, eps=8 / 255, steps=20)
    assert len(met.images) == 2
    assert (met.strongest <= met.bare_strongest).all()  # it answers as the bare model does
    assert (met.strongest >= met.aimed.won).all()
    row = met.row()
    assert row["eps_255"] == 8
    assert row["undefended"] == 1
    # Clopper-Pearson, 3 of 3 at 95 %: 0.025 ** (1 / 3)
    assert row["undefended_strongest_low"] == pytest.approx(0.025 ** (1 / 3), abs=1e-3)


@pytest.mark.data
def test_detectors_can_be_looked_through(data_dir: object) -> None:
    from pathlib import Path

    import detectors
    from detectors.base import Evidence
    from detectors.benign import variations
    from loadtests.cifar import load_images, load_model

    assert isinstance(data_dir, Path)
    network = load_model(data_dir)
    x, y = load_images(data_dir, "test", 80)
    parts = [
        detectors.build(name) for name in ("residual", "margin", "energy", "feature_squeezing")
    ]
    groups = {}
    for group, part in variations(x[:60], torch.Generator().manual_seed(1)).items():
        views = {v.key: network(v.purify(part)) for p in parts for v in p.views}
        groups[group] = Evidence(part, network(part), views)
    for detector in parts:
        detector.fit(groups)

    def fuse(scores: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(scores.values())).sum(0)

    watch = Watch(network, parts, fuse, 12.0)  # type: ignore[arg-type]
    x, y = x[60:70], network(x[60:70]).argmax(1)
    met = confront([Guarded(watch)], Undefended(network), x, y, eps=4 / 255, steps=15)
    assert met.bare.mean() == 1
    assert met.aimed.won.mean() >= 0.8
