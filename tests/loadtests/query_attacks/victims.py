"""A victim that needs no data folder and no training."""

from __future__ import annotations

import torch
from torch import Tensor

from loadtests.query_attacks.victim import Victim
from tuning.demo import digits

CALIBRATION = 90


def untrained() -> Victim:
    """The demo's network with random weights; an image's class is what the network says."""
    torch.manual_seed(11)
    network = digits.network().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    # Centred, so that one class does not swallow all images.
    data = digits.load()
    every = torch.cat([part[0] for part in (data.train, data.calibrate, data.test)])
    last = network[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias.sub_(network(every).mean(0))

    def labelled(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, network(x).argmax(1)

    return Victim(
        name="digits",
        network=network,
        calibration=every[:CALIBRATION],
        attacked=labelled(every[100:300]),
        owned=labelled(every[300:800]),
        ordinary=every[800:],
    )
