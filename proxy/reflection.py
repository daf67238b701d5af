"""Server reflection: clients such as grpcurl see Triton's service, health and reflection itself.

Our description lives in a package of our own; clients must see it as `inference`, the package of
the method paths. So it is registered again under that name, in a pool that nothing else shares.
"""

from __future__ import annotations

import grpc.aio
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from proxy.pb import open_inference_pb2
from proxy.rpc import SERVICE


def add_reflection(server: grpc.aio.Server) -> None:
    """Add the reflection service to a server that has not started yet."""
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_pool())


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    ours = _as_package(SERVICE.rpartition(".")[0]).SerializeToString()
    for file in (ours, *(m.DESCRIPTOR.serialized_pb for m in (health_pb2, reflection_pb2))):
        pool.AddSerializedFile(file)  # type: ignore[no-untyped-call]  # untyped in the stubs
    return pool


def _as_package(package: str) -> FileDescriptorProto:
    """Return our description of the protocol with its package renamed."""
    file = FileDescriptorProto.FromString(open_inference_pb2.DESCRIPTOR.serialized_pb)
    old, new = f".{file.package}.", f".{package}."
    file.package = package
    for message in file.message_type:
        _rename(message, old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new, 1)
            method.output_type = method.output_type.replace(old, new, 1)
    return file


def _rename(message: DescriptorProto, old: str, new: str) -> None:
    for field in message.field:
        if field.type_name:  # setting an empty one would say that there is one
            field.type_name = field.type_name.replace(old, new, 1)
    for nested in message.nested_type:
        _rename(nested, old, new)
