"""The images attacked and owned, and what Triton is given."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import torch

from loadtests.query_attacks.victim import OTHERS, Victim
from tests.loadtests.query_attacks.victims import untrained


def test_targets_are_right_and_nobody_shares_an_image() -> None:
    victim = untrained()
    found = list(itertools.islice(victim.targets(), 8))
    images = [image.tobytes() for t in found for image in (t.clean, *t.others)]
    assert len(set(images)) == len(images) == 8 * (1 + OTHERS)
    for target in found:
        assert victim.bare.answers(target.clean[None]).argmax() == target.label
        labels = victim.bare.answers(target.others).argmax(1)
        assert target.label not in labels


def test_targets_from_a_place_on() -> None:
    victim = untrained()
    later = next(victim.targets(5)).clean
    assert later.tobytes() == victim.attacked[0][5].numpy().tobytes()


def test_what_the_model_gets_wrong_is_not_attacked() -> None:
    right = untrained()
    x, labels = right.attacked
    labels = torch.where(torch.arange(len(labels)) % 2 == 0, labels, (labels + 1) % 10)
    victim = Victim(
        name="digits",
        network=right.network,
        calibration=right.calibration,
        attacked=(x, labels),
        owned=right.owned,
        ordinary=right.ordinary,
    )
    attacked = {target.clean.tobytes() for target in victim.targets()}
    assert attacked <= {image.numpy().tobytes() for image in x[::2]}


def test_a_repository_serves_the_very_network(tmp_path: Path) -> None:
    victim = untrained()
    folder = victim.write_repository(tmp_path / "models")
    config = (folder / victim.name / "config.pbtxt").read_text()
    assert 'name: "digits"' in config
    assert "dims: [1, 32, 32]" in config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        served = torch.jit.load(str(folder / victim.name / "1" / "network.pt"))
    x = victim.calibration[:4]
    np.testing.assert_array_equal(served(x).numpy(), victim.bare.answers(x.numpy()))
