"""Networks nobody trained, for parts whose weights do not matter to the test."""

from __future__ import annotations

import torch

from detectors import Detector
from purifiers import Purifier
from purifiers.learned import Learned


def equip(part: Detector | Purifier, shape: tuple[int, ...], classes: int = 10) -> None:
    """Give the part, and the parts it consists of or asks for, networks with seeded weights.

    Args:
        shape: of one sample.
        classes: answers of the model.
    """
    if isinstance(part, Learned):
        part.use(_network(part, shape, classes))
    others = part.views if isinstance(part, Detector) else part.members
    for other in others:
        if other is not part:
            equip(other, shape, classes)


def _network(part: Learned, shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = part.recipe.build(shape, classes)
        # Last layers may start at zero, and a network that does nothing hides mistakes.
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
    return network.eval()
