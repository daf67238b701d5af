"""The demo's digits behind a sidecar with a control port and a console: model, traffic, tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from proxy import configfile
from tuning import calibrate
from tuning.demo import digits, policy, traffic
from tuning.demo.sidecar import Sidecar
from tuning.triton import EmbeddedTriton

CHROMIUM = "/usr/bin/chromium"


@dataclass(frozen=True)
class Digits:
    """A served and calibrated model, not yet defended by anything that runs."""

    folder: Path
    config: Path
    kinds: list[traffic.Kind]
    """Traffic, clean first; the last kinds are attacks."""

    @property
    def network(self) -> Path:
        """A copy of the model."""
        return self.folder / "models" / digits.MODEL / "1" / "network.pt"

    @property
    def token(self) -> str:
        """What the console and the control port want."""
        return (self.folder / policy.TOKEN_FILE).read_text().strip()

    def settle(self, **fields: object) -> None:
        """Change fields of the model's policy before the sidecar starts."""
        document = yaml.safe_load(self.config.read_text())
        document["models"][digits.MODEL].update(fields)
        self.config.write_text(yaml.safe_dump(document, sort_keys=False))

    @contextlib.contextmanager
    def defended(self, workers: int = 1) -> Iterator[Sidecar]:
        """A ready `breakwater serve`."""
        sidecar = Sidecar(self.config, self.folder / "breakwater.log", workers=workers)
        try:
            yield sidecar
        finally:
            sidecar.stop()


@contextlib.contextmanager
def served(folder: Path, images: int = 60) -> Iterator[Digits]:
    """Train, serve, calibrate and attack, as the demo does.

    Args:
        folder: for everything that is written.
        images: of each kind of traffic.
    """
    data = digits.load()
    net = digits.train(*data.train, lambda: None)
    repository = digits.write_repository(net, folder / "models")
    x, y = data.test
    np.savez(folder / "test.npz", x=x.numpy(), y=y.numpy())
    benign = folder / "benign.npz"
    np.savez(benign, x=data.calibrate[0].numpy(), y=data.calibrate[1].numpy())
    kinds = traffic.kinds(net, x[:images], y[:images], lambda: None)
    with EmbeddedTriton(repository, log=folder / "triton.log") as triton:
        config = policy.write(folder, triton.grpc_address)
        with (folder / "calibrate.log").open("w") as log:
            calibrate.run(configfile.load(config), digits.MODEL, benign, console=Console(file=log))
        yield Digits(folder, config, kinds)


def send(sidecar: Sidecar, kind: traffic.Kind, count: int | None = None) -> None:
    """Send images of a kind, one a request."""
    client = traffic.Client(sidecar.address, None)
    for image in kind.x[:count]:
        client.classify(image)
    client.close()
