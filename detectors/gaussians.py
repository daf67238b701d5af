"""One-class model: a Gaussian per benign group, and the distance to the nearest one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detectors.base import DetectorError

_SHRINK = 0.05
"""Share of the covariance replaced by its diagonal; keeps a few hundred samples enough."""
_RIDGE = 1e-3
"""Added variance, in squared feature units: a feature constant on benign data has no scale."""
_TAIL = 0.9
"""Quantile of a group's own distances above which its tail is taken as exponential."""


class GroupGaussians:
    """Distance of features to the nearest benign group, on a scale all groups share.

    Each group's Mahalanobis distance is put on the scale -log(share of that group at least as
    far away), with an exponential tail above its 90 % quantile. Raw distances would compare badly:
    JPEG images have far heavier tails than noisy ones, so one threshold on the smallest raw
    distance would be set by JPEG images and let everything else through.

    Args:
        means: (G, D).
        whiteners: (G, D, D), `(f - mean) @ whitener` has unit covariance within the group.
        tails: (G, 2), the 90 % quantile of the group's distances and the mean excess over it.
    """

    def __init__(self, means: Tensor, whiteners: Tensor, tails: Tensor) -> None:
        self._means, self._whiteners, self._tails = means, whiteners, tails
        # All groups at once, about the mean of their means, so that little cancels.
        self._centre = means.mean(0)
        self._whitener = whiteners.transpose(0, 1).flatten(1)  # (D, G*D)
        self._bias = ((self._centre - means)[:, None] @ whiteners).flatten()  # (G*D,)
        start, excess = tails.unbind(1)
        self._scale, self._offset = 1 / excess, -start / excess - math.log(1 - _TAIL)

    @classmethod
    def fit(cls, groups: Sequence[Tensor]) -> GroupGaussians:
        """Learn from one (n_g, D) feature matrix per group.

        Raises:
            DetectorError: a group has fewer than max(20, 2 * D) samples, or a value that is not
                finite.
        """
        means, whiteners, tails = [], [], []
        for features in groups:
            _check(features)
            samples = features.double()
            mean, whitener = _gaussian(samples)
            distance = _cross_fitted(samples)
            start = torch.quantile(distance, _TAIL)
            over = (distance - start).clamp_min(0)
            # Images too small to differ have no tail at all; the floor keeps the scale finite.
            excess = (over.sum() / (over > 0).sum().clamp_min(1)).clamp_min(1e-2)
            means.append(mean)
            whiteners.append(whitener)
            tails.append(torch.stack((start, excess)))
        return cls(*(torch.stack(part).float() for part in (means, whiteners, tails)))

    def distance(self, features: Tensor) -> Tensor:
        """Return (B,) for features (B, D): about -log of the tail share in the nearest group."""
        white = torch.addmm(self._bias, features - self._centre, self._whitener)  # (B, G*D)
        raw = torch.linalg.vector_norm(white.unflatten(1, self._means.shape), dim=2)  # (B, G)
        return torch.addcmul(self._offset, raw, self._scale).amin(dim=1)

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return {"means": self._means, "whiteners": self._whiteners, "tails": self._tails}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> GroupGaussians:
        """The inverse of `state`, on the given device.

        Raises:
            DetectorError: the state is not one of this class.
        """
        keys = ("means", "whiteners", "tails")
        if set(state) != set(keys):
            raise DetectorError(f"expected state {sorted(keys)}, not {sorted(state)}")
        return cls(*(state[key].to(device) for key in keys))


def _gaussian(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and whitener (D, D) of samples (n, D) float64."""
    mean = samples.mean(0)
    covariance = torch.cov(samples.T).reshape(mean.numel(), mean.numel())
    covariance = (1 - _SHRINK) * covariance + _SHRINK * torch.diag(covariance.diagonal())
    covariance += _RIDGE * torch.eye(mean.numel(), dtype=samples.dtype, device=samples.device)
    return mean, torch.linalg.cholesky(torch.linalg.inv(covariance))


def _cross_fitted(samples: Tensor) -> Tensor:
    """Distance of each sample to the Gaussian of the half it is not in, (n,).

    A sample lies nearer to a Gaussian it helped to fit than a fresh one does; tails fitted on such
    distances would promise too few false positives.
    """
    distance = samples.new_empty(samples.shape[0])
    for this, other in ((0, 1), (1, 0)):
        mean, whitener = _gaussian(samples[other::2])
        distance[this::2] = ((samples[this::2] - mean) @ whitener).norm(dim=1)
    return distance


def _check(features: Tensor) -> None:
    count, size = features.shape
    if count < max(20, 2 * size):
        raise DetectorError(
            f"a benign group has {count} samples; {max(20, 2 * size)} are needed to fit"
        )
    if not torch.isfinite(features).all():
        raise DetectorError("benign evidence has values that are not finite")
