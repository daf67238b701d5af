"""Input-only detector of waveforms: is there more in the upper bands than benign sound has?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.tails import Tails
from purifiers.base import Kind

_FRAME, _HOP = 256, 128
"""Of the spectra, in samples: 16 ms of speech at 16 kHz. A Hann window halves every sample once, so
that no part of the wave weighs less than another."""
_BANDS, _LOWEST = 16, 4
"""Equal bands up to half the sampling rate, and the first one looked at. On the tones of the tests
(thresholds at 5 % of the worst benign group, PGD of 0.04 and 0.08 of full scale at amplitudes of
0.2 to 0.6) 8 or 16 bands from a quarter or a half upwards detect alike, 0.31 to 0.35 and 0.94 to
0.95; 32 bands 0.30 and 0.86."""
_SILENCE = _FRAME * 2.0**-30
"""Energy added to a frame's, that of one level of 16 bits: silence has no bands."""
_FLOOR = 1e-7
"""Share of the energy, -70 dB, below which all bands are alike."""
_LEAST = 20
"""Fewest benign waveforms."""


class BandResidual(Detector):
    """Energy in each of the upper bands, as a share of the whole, above what is benign.

    One-sided: quiet bands are never suspicious. Each band's log share is put on the scale of its
    benign tail, -log p, and these are added; of several channels, the largest sum counts.

    Sees perturbations that are spread over the spectrum and louder than the noise it was fitted
    with (20 dB below the signal and less). Does not see weaker ones, nor any under the signal's own
    frequencies.

    Source: the energy ratios of speech and noise detection on the spectrum of Welch (IEEE Trans.
    Audio Electroacoust. 1967); filtered bands against attacks on sound after Rajaratnam, Shah,
    Kalita, ROCLING 2018 (arXiv 1809.04397). Known adaptive break: perturbations shaped to lie under
    the signal (Qin et al., ICML 2019, arXiv 1903.10346).
    """

    name: ClassVar[str] = "band_residual"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.WAVEFORM})

    def __init__(self) -> None:
        self._tails: Tails | None = None
        self._windows: dict[torch.device, Tensor] = {}

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the benign tails of every band, over all groups together."""
        with torch.no_grad():
            shares = torch.cat(
                [self._shares(evidence.x).flatten(0, 1) for evidence in benign.values()]
            )
        if len(shares) < _LEAST or not torch.isfinite(shares).all():
            raise DetectorError(f"{self.name}: needs {_LEAST} benign waveforms, all finite")
        self._tails = Tails.fit(shares)

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return self._tails.state() if self._tails else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        self._tails = Tails.from_state(state, device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        shares = self._shares(evidence.x)  # (B, C, bands)
        surprise = self._tails(shares.flatten(0, 1)).sum(dim=1)  # (B*C,)
        largest: Tensor = surprise.view(shares.shape[:2]).amax(dim=1)
        return largest

    def _shares(self, x: Tensor) -> Tensor:
        """Log share of each upper band in the energy, (B, C, bands)."""
        batch, channels, length = x.shape
        if not batch:
            return x.new_empty(0, channels, _BANDS - _LOWEST)
        # Half a frame around, so that every sample is in two frames; of the edge value, since a
        # step down to silence would have energy in every band.
        padded = F.pad(x, (_HOP, _HOP + -length % _HOP), mode="replicate")
        frames = padded.unfold(2, _FRAME, _HOP) * self._window(x.device)  # (B, C, L, frame)
        spectrum = torch.fft.rfft(frames)[..., 1:]  # (B, C, L, frame/2)
        energy = spectrum.abs().square().mean(dim=2)
        bands = energy.unflatten(2, (_BANDS, -1)).sum(dim=3)  # (B, C, bands)
        whole = bands.sum(dim=2, keepdim=True) + _SILENCE
        shares: Tensor = (bands[..., _LOWEST:] / whole + _FLOOR).log()
        return shares

    def _window(self, device: torch.device) -> Tensor:
        if device not in self._windows:
            with torch.inference_mode(mode=False):
                self._windows[device] = torch.hann_window(_FRAME, device=device)
        return self._windows[device]
