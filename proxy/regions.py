"""Our own memory at Triton, kept from clients: its names are neither shown to them nor taken.

Told by the beginning of the name, so that every worker and replica keeps those of the others, too.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from proxy import rpc
from proxy.arena import PREFIX
from proxy.errors import InvalidRequest, SharedMemoryRefused
from proxy.pb import open_inference_pb2 as pb
from proxy.wire import Head

_REGION = "shared_memory_region"
_REFUSED = f"names that begin with {PREFIX!r} are reserved"
_REQUESTS: dict[str, type[Message]] = {
    "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest,
    "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest,
    "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest,
}


def refuse_reference(head: Head) -> None:
    """Raise SharedMemoryRefused where an input or a requested output would lie in our memory."""
    regions = [t.shared_memory.region for t in head.inputs if t.shared_memory is not None]
    regions += [
        output.parameters[_REGION].string_param
        for output in head.message.outputs
        if _REGION in output.parameters
    ]
    if any(region.startswith(PREFIX) for region in regions):
        raise SharedMemoryRefused(_REFUSED)


def refuse_call(method: rpc.Rpc, data: bytes, *, in_use: bool) -> None:
    """Raise SharedMemoryRefused where a shared-memory RPC is about our memory, by name or by key.

    Args:
        in_use: tensors go through our memory. To unregister all regions is then refused: Triton
            unmaps them at once, also under inferences that read them.

    Raises:
        InvalidRequest: what is asked cannot be read here; Triton might read it all the same.
    """
    kind = _REQUESTS.get(method.name)
    if kind is None:
        return
    try:
        request = kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"the message is not a valid {kind.DESCRIPTOR.name}") from None
    key = getattr(request, "key", "").lstrip("/")  # as shm_open does
    name = getattr(request, "name", "")
    if name.startswith(PREFIX) or key.startswith(PREFIX):
        raise SharedMemoryRefused(_REFUSED)
    if in_use and not name and method.name == "SystemSharedMemoryUnregister":
        raise SharedMemoryRefused("not all regions at once: name the one to unregister")


def without_ours(method: rpc.Rpc, answer: bytes) -> bytes:
    """Return Triton's answer to a shared-memory RPC without our regions in it."""
    if method.name != "SystemSharedMemoryStatus":
        return answer
    status = pb.SystemSharedMemoryStatusResponse.FromString(answer)
    ours = [name for name in status.regions if name.startswith(PREFIX)]
    if not ours:
        return answer
    for name in ours:
        del status.regions[name]
    return status.SerializeToString()
