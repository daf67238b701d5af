from __future__ import annotations

from typing import get_args

import pytest
from tritonclient.grpc import service_pb2

from proxy.config import RpcGroup
from proxy.pb import open_inference_pb2
from proxy.rpc import ALWAYS_ON, BY_PATH, RPCS, SERVICE

OURS = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
THEIRS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]


@pytest.mark.parametrize("service", [OURS, THEIRS], ids=["ours", "tritonclient"])
def test_every_rpc_has_a_group_and_its_streaming_flag(service) -> None:
    assert {m.name for m in service.methods} == set(RPCS)
    for method in service.methods:
        assert RPCS[method.name].streaming == method.client_streaming == method.server_streaming


def test_there_are_twenty() -> None:
    assert len(RPCS) == 20


def test_every_group_is_always_on_or_can_be_allowed() -> None:
    assert {rpc.group for rpc in RPCS.values()} == ALWAYS_ON | set(get_args(RpcGroup))
    assert not ALWAYS_ON & set(get_args(RpcGroup))


def test_paths_are_tritons() -> None:
    assert THEIRS.full_name == SERVICE
    assert set(BY_PATH) == {f"/{THEIRS.full_name}/{m.name}" for m in THEIRS.methods}
    assert BY_PATH["/inference.GRPCInferenceService/ModelInfer"] is RPCS["ModelInfer"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("ModelInfer", "inference"),
        ("ModelStreamInfer", "inference"),
        ("ModelReady", "health"),
        ("ModelMetadata", "metadata"),
        ("ModelConfig", "model-config"),
        ("ModelStatistics", "statistics"),
        ("RepositoryModelLoad", "model-repository"),
        ("CudaSharedMemoryRegister", "shared-memory"),
        ("TraceSetting", "trace"),
        ("LogSettings", "logging"),
    ],
)
def test_groups_are_tritons_restricted_protocols(name: str, group: str) -> None:
    assert RPCS[name].group == group
