"""What an attacker asks: one image at a time, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.float32]
"""One image, (C, H, W) in [0, 1]."""
Logits = NDArray[np.float32]
"""What the model says to one image, (K,)."""


@dataclass(frozen=True)
class Answer:
    """What came back for one query."""

    logits: Logits | None
    """None where the server refused."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Trailing metadata: where a sidecar annotates, the verdict. No attacker here reads it."""

    @property
    def is_refused(self) -> bool:
        """Whether the server answered with an error."""
        return self.logits is None

    @property
    def label(self) -> int:
        """The class answered, -1 where refused."""
        return -1 if self.logits is None else int(self.logits.argmax())

    @property
    def margin(self) -> float:
        """The best class's logit minus the second's; 0 where refused."""
        if self.logits is None:
            return 0.0
        second, best = np.partition(self.logits, -2)[-2:]
        return float(best - second)


class Oracle(Protocol):
    """A model, defended or not, that answers queries."""

    def ask(self, image: Image) -> Answer:
        """The answer to one image, sent as it is."""
        ...


class LocalOracle:
    """A model in this process, undefended.

    Args:
        model: images in [0, 1] (B, C, H, W) -> logits (B, K).
    """

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self._model = model

    def ask(self, image: Image) -> Answer:
        """The model's own answer."""
        return Answer(self.answers(image[None])[0])

    def answers(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of many images at once, (B, K); no query is counted anywhere."""
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._model(torch.from_numpy(images)).numpy()
        return logits
