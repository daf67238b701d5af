from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from tritonclient.grpc import service_pb2

from proxy.reflection import add_reflection

Request = reflection_pb2.ServerReflectionRequest


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stub() -> AsyncIterator[ServerReflectionStub]:
    server = grpc.aio.server()
    add_reflection(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ServerReflectionStub(channel)
    await server.stop(None)


async def ask(stub: ServerReflectionStub, **question: str):
    async for answer in stub.ServerReflectionInfo(iter([Request(**question)])):
        return answer


async def files_with(stub: ServerReflectionStub, symbol: str) -> list[FileDescriptorProto]:
    answer = await ask(stub, file_containing_symbol=symbol)
    files = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(file) for file in files]


async def test_services(stub: ServerReflectionStub) -> None:
    answer = await ask(stub, list_services="")
    assert [service.name for service in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    for service in answer.list_services_response.service:
        assert await files_with(stub, service.name)


async def test_clients_see_tritons_service(stub: ServerReflectionStub) -> None:
    pool = DescriptorPool()
    for file in await files_with(stub, "inference.GRPCInferenceService"):
        assert "breakwater" not in str(file)
        pool.Add(file)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {m.name: (m.input_type.full_name, m.output_type.full_name) for m in service.methods} == {
        m.name: (m.input_type.full_name, m.output_type.full_name) for m in theirs.methods
    }


async def test_messages_made_from_reflection_are_tritons(stub: ServerReflectionStub) -> None:
    pool = DescriptorPool()
    for file in await files_with(stub, "inference.ModelConfig"):
        pool.Add(file)
    message = service_pb2.ModelConfigResponse()
    message.config.optimization.cuda.graph_spec.add().input["x"].dim.append(3)
    message.config.sequence_batching.oldest.max_candidate_sequences = 2
    reflected = GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfigResponse"))
    copy = reflected.FromString(message.SerializeToString())
    assert str(copy) == str(message)


async def test_unknown_symbols(stub: ServerReflectionStub) -> None:
    answer = await ask(stub, file_containing_symbol="breakwater.oip.ModelConfig")
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
