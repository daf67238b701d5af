"""Detector of backdoor triggers: is the answer immune to other images blended in?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.answers import floored
from detectors.base import Detector, DetectorError, Evidence, Need
from purifiers import Purifier, PurifierError

_LEAST = 1e-6
"""Added to the entropy, in nats: surer than this, all answers are alike."""


class Blend(Purifier):
    """Adds one stored benign image to every input and cuts at white.

    Sums keep the contrast of a trigger, means halve it: see `Strip`.

    Inputs of another height and width see the stored image resized.

    Args:
        index: of the stored image, for the key.
    """

    name: ClassVar[str] = "blend"

    def __init__(self, index: int) -> None:
        self._index = index
        self._image: Tensor | None = None
        self._resized: dict[tuple[torch.device, torch.Size], Tensor] = {}

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"blend(index={self._index})"

    def keep(self, image: Tensor) -> None:
        """Store the image to blend in, (C, H, W) uint8."""
        self._image, self._resized = image, {}

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (x + self._on(x.device, x.shape[1:])).clamp(0, 1)

    def _on(self, device: torch.device, shape: torch.Size) -> Tensor:
        """The stored image in [0, 1] for inputs of this device and shape, (1, C, H, W)."""
        if self._image is None:
            raise PurifierError(f"{self.key} has no benign image yet")
        if self._image.shape[0] != shape[0]:
            raise PurifierError(
                f"{self.key} is of {self._image.shape[0]} channels, the input of {shape[0]}"
            )
        if (device, shape) not in self._resized:
            image = self._image[None].to(device).float() / 255
            if image.shape[2:] != shape[1:]:
                image = F.interpolate(image, size=tuple(shape[1:]), mode="bilinear", antialias=True)
            self._resized = {(device, shape): image}  # one shape: callers choose the sizes
        return self._resized[device, shape]


class Strip(Detector):
    """Minus the mean log entropy of the answers to blends with benign images.

    An ordinary image blended with another gives a mixed answer. A backdoor trigger survives the
    blend and keeps the answer where the attacker wants it. Sees triggers planted in the model by
    poisoned training data that do not depend on the image. Blind to adversarial examples, which
    blending destroys, and to triggers the blend destroys too.

    Measured on a ResNet-20 with a 4x4 trigger planted (CIFAR-10, 4 blends, 1 % of the worst of 4
    benign groups): sums of the images 0.98, with the paper's mean entropy in place of the mean log
    0.76; means of the images 0.19 and 0.14.

    Args:
        count: blends, 2 to 64; one upstream query each.

    Source: Gao et al., ACSAC 2019 (arXiv 1902.06531), section 4, there with 100 blends.
    Known adaptive break: triggers that depend on the image (Nguyen and Tran, NeurIPS 2020, arXiv
    2010.08138).
    """

    name: ClassVar[str] = "strip"
    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 2

    def __init__(self, count: int = 4) -> None:
        if count not in range(2, 65):
            raise DetectorError(f"{self.name}: count must be 2 to 64, not {count!r}")
        self._blends = tuple(Blend(index) for index in range(int(count)))
        self._images: Tensor | None = None

    @property
    def views(self) -> tuple[Purifier, ...]:
        """See `Detector.views`."""
        return self._blends

    def prepare(self, clean: Tensor) -> None:
        """Store evenly spaced images to blend with."""
        if len(clean) < len(self._blends):
            raise DetectorError(
                f"{self.name}: {len(clean)} benign images; {len(self._blends)} are needed"
            )
        # Integer steps: rounding a float step could name the same image twice.
        rows = torch.arange(len(self._blends), device=clean.device) * len(clean)
        chosen = clean[rows // len(self._blends)]
        self._keep((chosen * 255).round().to(torch.uint8))

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return {} if self._images is None else {"images": self._images}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        images = state.get("images")
        if set(state) != {"images"} or images is None or images.ndim != 4:
            raise DetectorError(f"{self.name}: expected images, not {sorted(state)}")
        if len(images) != len(self._blends):
            raise DetectorError(
                f"{self.name}: the state holds {len(images)} images for {len(self._blends)} blends"
            )
        self._keep(images.to(device))

    def _keep(self, images: Tensor) -> None:
        self._images = images
        for blend, image in zip(self._blends, images, strict=True):
            blend.keep(image)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._images is None or evidence.output is None:
            raise DetectorError(f"{self.name} was not fitted")
        answers = torch.stack([evidence.views[blend.key] for blend in self._blends])  # (V, B, K)
        logs = floored(answers.flatten(0, 1)).log_softmax(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1).view(answers.shape[:2])
        score = -(entropy.clamp_min(0) + _LEAST).log().mean(dim=0)
        # The model's own answer says nothing here, but one that is no number must not pass.
        return score + floored(evidence.output).sum(dim=1) * 0
