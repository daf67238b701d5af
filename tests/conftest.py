"""Fixtures every test may use: the real Triton, the data folder, a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.hypothesis_profiles  # noqa: F401 (registers and loads the profile)
from tuning.triton import EmbeddedTriton, TritonUnavailable, wheel_folder

CHECKOUT = Path(__file__).resolve().parents[1]


TRITON = pytest.StashKey[EmbeddedTriton]()


@pytest.fixture(scope="session")
def triton(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedTriton]:
    """A real Triton serving tests/models. Tests that use it carry the marker `triton`."""
    try:
        wheel_folder()
    except TritonUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    log = tmp_path_factory.mktemp("triton") / "server.log"
    with EmbeddedTriton(CHECKOUT / "tests" / "models", log=log) as server:
        request.config.stash[TRITON] = server
        yield server


@pytest.fixture(autouse=True)
def _revive_triton(request: pytest.FixtureRequest) -> None:
    """Start Triton again if the test before left it crashed.

    2.51 can crash some time after a client has cancelled a call (triton-inference-server #7368),
    and one test's cancelled call must not fail the hundreds after it.
    """
    server = request.config.stash.get(TRITON, None)
    if server is not None and server.has_crashed:
        print("Triton has crashed; its log ends:", server.log_tail(), sep="\n")
        server.restart()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with cifar10/ and photos/. Tests that use it carry the marker `data`."""
    named = os.environ.get("BREAKWATER_TEST_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set BREAKWATER_TEST_DATA")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` on machines without one, with the reason."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch  # slow to import, and only marked tests need it here

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def calibrations(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibration for every model of `tests.defended.MODELS`."""
    import numpy as np  # with torch behind it, and only these tests need them
    from rich.console import Console

    from proxy.config import Config
    from tests.defended import MODELS
    from tests.images import benign
    from tuning.calibrate import run

    folder = tmp_path_factory.mktemp("calibrations")
    data = folder / "benign.npz"
    np.savez(data, x=benign(150, seed=1))
    models = {
        name: {**fields, "calibration": folder / name, "fpr": 0.05}
        for name, fields in MODELS.items()
    }
    config = Config.model_validate({"upstream": triton.grpc_address, "models": models})
    with (folder / "calibrate.log").open("w") as log:
        for name in models:
            run(config, name, data, console=Console(file=log))
    return folder
