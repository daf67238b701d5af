"""The embedded Triton: starts, answers, survives a crash, and says why it does not start."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client_library

from tuning.triton import EmbeddedTriton, TritonUnavailable, backend_folder

pytestmark = pytest.mark.triton

MODEL = "identity_fp32"
MODELS = Path(__file__).resolve().parents[1] / "models"


def one_model(folder: Path) -> Path:
    """Make a repository of one model, which starts faster than the whole of tests/models."""
    (folder / MODEL).symlink_to(MODELS / MODEL)
    return folder


def echo(server: EmbeddedTriton, x: np.ndarray) -> np.ndarray:
    tensor = client_library.InferInput("image", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    with client_library.InferenceServerClient(server.grpc_address) as client:
        return client.infer(MODEL, [tensor]).as_numpy("echo")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)


def test_shared_server_serves_every_model(triton: EmbeddedTriton) -> None:
    with client_library.InferenceServerClient(triton.grpc_address) as client:
        served = {model.name for model in client.get_model_repository_index().models}
        assert served == {folder.name for folder in MODELS.iterdir()}
        assert all(client.is_model_ready(name) for name in served)


def test_answers_with_the_tensor_it_was_sent(triton: EmbeddedTriton, image: np.ndarray) -> None:
    np.testing.assert_array_equal(echo(triton, image), image)


def test_comes_back_on_the_same_ports_after_a_crash(tmp_path: Path, image: np.ndarray) -> None:
    with EmbeddedTriton(one_model(tmp_path)) as server:
        before = server.grpc_address, server.http_port
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.grpc_port))
        server.restart()
        assert (server.grpc_address, server.http_port) == before
        np.testing.assert_array_equal(echo(server, image), image)


def test_a_crash_is_told_from_a_stop(tmp_path: Path, image: np.ndarray) -> None:
    with EmbeddedTriton(one_model(tmp_path)) as server:
        assert not server.has_crashed
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        assert server.has_crashed
        server.restart()
        assert not server.has_crashed
        np.testing.assert_array_equal(echo(server, image), image)
        server.stop()
        assert not server.has_crashed


def test_stop_ends_the_process_and_leaves_nothing(tmp_path: Path) -> None:
    server = EmbeddedTriton(one_model(tmp_path)).start()
    pid = server.pid
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(TritonUnavailable, match="not running"):
        _ = server.pid
    assert not list(Path("/dev/shm").glob(f"breakwater_{os.getpid()}_{server.grpc_port}_*"))


def test_start_fails_with_the_tail_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights here')\n")
    (tmp_path / "broken" / "config.pbtxt").write_text('name: "broken" backend: "python"\n')
    server = EmbeddedTriton(tmp_path)
    with pytest.raises(TritonUnavailable, match="no weights here"):
        server.start()


def test_extra_arguments_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedTriton(one_model(tmp_path), extra_args=["--id=harbour"]) as server:
        url = f"http://127.0.0.1:{server.http_port}/v2"
        with urllib.request.urlopen(url) as answer:
            assert b'"name":"harbour"' in answer.read()


def test_backend_folder_is_made_once() -> None:
    folder = backend_folder()
    assert folder == backend_folder()
    assert (folder / "python" / "triton_python_backend_stub").exists()
