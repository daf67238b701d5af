"""The contract every registered detector must keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors import DETECTORS, Detector, DetectorError, Evidence, Need, build
from detectors.base import peer_key
from detectors.chains import FEATURES
from purifiers.base import Kind
from purifiers.learned import Learned
from tests.untrained import equip

EACH: list[tuple[str, dict[str, object]]] = [
    ("residual", {}),
    ("residual_cnn", {}),
    ("denoiser_residual", {}),
    ("chroma", {}),
    ("high_frequency", {}),
    ("flat_noise", {}),
    ("srm", {}),
    ("patch", {}),
    ("margin", {}),
    ("energy", {}),
    ("feature_squeezing", {}),
    ("feature_squeezing", {"views": [{"name": "bit_depth"}], "temperature": 3}),
    ("feature_squeezing", {"measures": ["softmax"]}),
    ("entropy", {}),
    ("jpeg_view", {}),
    ("mirror_view", {}),
    ("denoised_view", {}),
    ("purified_view", {"purifiers": [{"name": "median"}, {"name": "jpeg"}]}),
    ("noise_stability", {}),
    ("strip", {}),
    ("ensemble", {"models": ["one", "two"]}),
    ("surrogate", {}),
    ("mahalanobis", {}),
    ("nearest_neighbours", {}),
    ("lid", {}),
    ("vector_mahalanobis", {}),
    ("vector_neighbours", {"k": 1}),
    ("vector_autoencoder", {}),
    ("band_residual", {}),
    ("history", {}),
]
CPU = torch.device("cpu")
SHAPE = (3, 16, 12)
SHAPES = {Kind.VECTOR: (9,), Kind.WAVEFORM: (1, 600)}
"""Of one sample for detectors that do not take images."""


def equipped(spec: tuple[str, dict[str, object]]) -> Detector:
    """The detector, not fitted, with untrained networks where it needs some."""
    chosen = build(*spec)
    equip(chosen, SHAPE)
    return chosen


def evidence(detector: Detector, batch: int, channels: int = 3, seed: int = 0) -> Evidence:
    """Random evidence of everything the detector needs."""
    generator = torch.Generator().manual_seed(1000 * batch + seed)

    def answer() -> Tensor:
        return 4 * torch.randn(batch, 10, generator=generator)

    shape = (channels, 16, 12)
    if Kind.IMAGE not in detector.kinds:
        shape = next(SHAPES[kind] for kind in detector.kinds)
    x = torch.rand(batch, *shape, generator=generator)
    asked = [*(view.key for view in detector.views), *map(peer_key, detector.peers)]
    output, views = answer(), {key: answer() for key in asked}
    chain = 10 * torch.rand(batch, len(FEATURES), generator=generator)
    return Evidence(x, output, views, chain if detector.needs is Need.HISTORY else None)


def part(whole: Evidence, i: int) -> Evidence:
    assert whole.output is not None
    views = {key: view[i : i + 1] for key, view in whole.views.items()}
    chain = None if whole.chain is None else whole.chain[i : i + 1]
    return Evidence(whole.x[i : i + 1], whole.output[i : i + 1], views, chain)


@pytest.fixture(params=EACH, ids=repr)
def spec(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    chosen: tuple[str, dict[str, object]] = request.param
    return chosen


@pytest.fixture
def detector(spec: tuple[str, dict[str, object]]) -> Detector:
    chosen = equipped(spec)
    chosen.prepare(evidence(chosen, 64, seed=1).x)
    chosen.fit({"clean": evidence(chosen, 64, seed=1), "noise": evidence(chosen, 64, seed=2)})
    return chosen


def test_every_detector_is_here() -> None:
    assert {name for name, _ in EACH} == set(DETECTORS)
    assert all(name == cls.name for name, cls in DETECTORS.items())


@pytest.mark.parametrize("batch", [0, 1, 2, 7])
def test_cardinality(detector: Detector, batch: int) -> None:
    scores = detector.score(evidence(detector, batch))
    assert (scores.shape, scores.dtype) == ((batch,), torch.float32)
    assert bool(torch.isfinite(scores).all())


def test_a_batch_equals_its_samples(detector: Detector) -> None:
    whole = evidence(detector, 7)
    alone = torch.cat([detector.score(part(whole, i)) for i in range(7)])
    torch.testing.assert_close(detector.score(whole), alone, rtol=1e-4, atol=1e-4)


def test_deterministic(detector: Detector) -> None:
    whole = evidence(detector, 5)
    assert torch.equal(detector.score(whole), detector.score(whole))


def test_input_unchanged(detector: Detector) -> None:
    whole, again = evidence(detector, 3), evidence(detector, 3)
    detector.score(whole)
    assert whole.output is not None
    assert again.output is not None
    assert torch.equal(whole.x, again.x)
    assert torch.equal(whole.output, again.output)
    assert all(torch.equal(whole.views[key], again.views[key]) for key in again.views)


def test_state_round_trip(spec: tuple[str, dict[str, object]], detector: Detector) -> None:
    state = {key: tensor.clone() for key, tensor in detector.state().items()}
    restored = equipped(spec)
    restored.load_state(state, CPU)
    whole = evidence(detector, 4)
    assert torch.equal(restored.score(whole), detector.score(whole))
    assert all(tensor.is_contiguous() for tensor in state.values())


def test_foreign_state_is_refused(detector: Detector) -> None:
    with pytest.raises(DetectorError):
        detector.load_state({"something": torch.zeros(1)}, CPU)


def test_missing_evidence_is_an_error(detector: Detector) -> None:
    whole = evidence(detector, 2)
    bare = Evidence(whole.x)
    if detector.needs is Need.INPUT:
        assert detector.score(bare).shape == (2,)
        return
    missing = "queries before this one" if detector.needs is Need.HISTORY else "output"
    with pytest.raises(DetectorError, match=missing):
        detector.score(bare)


def test_missing_views_are_an_error(detector: Detector) -> None:
    whole = evidence(detector, 2)
    if detector.needs is Need.VIEWS:
        with pytest.raises(DetectorError, match="views"):
            detector.score(Evidence(whole.x, whole.output))


def test_nan_evidence_never_gives_a_finite_score(detector: Detector) -> None:
    whole = evidence(detector, 3)
    assert whole.output is not None
    whole.x[1].view(-1)[3] = float("nan")
    whole.output[1, 2] = float("nan")
    scores = detector.score(whole)
    assert not torch.isfinite(scores[1])
    assert bool(torch.isfinite(scores[[0, 2]]).all())


def test_unfitted_detectors_refuse(spec: tuple[str, dict[str, object]], detector: Detector) -> None:
    if not detector.state():
        pytest.skip("learns nothing")
    fresh = equipped(spec)
    assert fresh.state() == {}
    with pytest.raises(DetectorError, match="not fitted"):
        fresh.score(evidence(fresh, 1))


def test_untrained_detectors_refuse(spec: tuple[str, dict[str, object]]) -> None:
    fresh = build(*spec)
    if not isinstance(fresh, Learned):
        pytest.skip("has no network")
    words = f"no weights '{fresh.recipe.name}'; `breakwater fit` makes them"
    with pytest.raises(DetectorError, match=words):
        fresh.score(evidence(fresh, 1))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (28, 28), (33, 47)])
def test_any_image_size(channels: int, size: tuple[int, int]) -> None:
    detector = build("residual")
    generator = torch.Generator().manual_seed(5)
    benign = {"clean": Evidence(torch.rand(70, channels, *size, generator=generator))}
    detector.fit(benign)
    scores = detector.score(Evidence(torch.rand(2, channels, *size, generator=generator)))
    assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("squeezing", {}, "unknown detector 'squeezing'; there are: residual, "),
        ("margin", {"k": 1}, r"unknown parameters \['k'\]; there are: none"),
        ("feature_squeezing", {"temperature": 0}, "temperature must be > 0"),
        ("feature_squeezing", {"views": []}, "at least one view"),
        ("feature_squeezing", {"views": [{"name": "x"}]}, "there are: "),
        ("feature_squeezing", {"views": ["jpeg"]}, "a view is"),
        ("feature_squeezing", {"views": [{"name": "jpeg"}] * 2}, "only once"),
    ],
)
def test_build_says_what_is_valid(name: str, params: dict[str, object], words: str) -> None:
    with pytest.raises(DetectorError, match=words):
        build(name, params)


def test_gradients_after_a_call_without(detector: Detector) -> None:
    whole = evidence(detector, 3)
    assert whole.output is not None
    if detector.needs is Need.HISTORY:
        pytest.skip("judges an input by those before it, whatever its pixels")
    detector.score(whole)
    x, output = whole.x.clone().requires_grad_(), whole.output.clone().requires_grad_()
    views = {key: view.clone().requires_grad_() for key, view in whole.views.items()}
    scores = detector.score(Evidence(x, output, views), gradients=True)
    torch.testing.assert_close(scores.detach(), detector.score(whole))
    leaves = [x, output, *views.values()]
    found = torch.autograd.grad(scores.sum(), leaves, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in found)
