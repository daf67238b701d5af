"""System shared memory read in place, copied once: what is inspected is what is forwarded.

Triton is asked which POSIX object a region name stands for; the proxy maps nothing of the client's
into its own checks but a private copy, which then travels inline: the client cannot change it
between check and use. Triton is asked every time, since a region can be registered anew through
another worker or past the proxy, and an old answer would then serve old data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from proxy import rpc
from proxy.errors import InvalidTensor, UpstreamError
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Metadata, Upstream
from proxy.wire import Tensor

_SHM_FOLDER = "/dev/shm"  # noqa: S108 (where Linux keeps POSIX shared memory, not a temporary file)
_KEY = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
"""shm_open(3) names: one path component. Triton's own objects are kept out by `_RESERVED`."""
_RESERVED = "triton_python_backend_shm_region_"


class SharedMemoryReader:
    """Reads tensors out of the system shared-memory regions registered with Triton.

    Args:
        upstream: asked for the regions.
        max_bytes: largest tensor read.
    """

    def __init__(self, upstream: Upstream, *, max_bytes: int) -> None:
        self._upstream = upstream
        self._max_bytes = max_bytes

    async def read_all(
        self, tensors: Sequence[Tensor], *, timeout_s: float, metadata: Metadata | None
    ) -> dict[int, bytes]:
        """Private copies of the tensors that lie in shared memory, by index; raises as `read`.

        All of them together are bounded like one: a request of a few hundred bytes may name the
        same large region many times.
        """
        total = sum(t.shared_memory.byte_size for t in tensors if t.shared_memory is not None)
        if total > self._max_bytes:
            raise InvalidTensor(
                f"shared-memory tensors of {total} bytes are over the limit of {self._max_bytes}"
            )
        return {
            tensor.index: await self.read(
                place.region,
                offset=place.offset,
                byte_size=place.byte_size,
                timeout_s=timeout_s,
                metadata=metadata,
            )
            for tensor in tensors
            if (place := tensor.shared_memory) is not None
        }

    async def read(
        self,
        region: str,
        *,
        offset: int,
        byte_size: int,
        timeout_s: float,
        metadata: Metadata | None,
    ) -> bytes:
        """A private copy of `byte_size` bytes at `offset` of the named region.

        Raises:
            InvalidTensor: no such region, or the range lies outside it or outside the object.
            ProxyError: Triton could not be asked.
        """
        if byte_size > self._max_bytes:
            raise InvalidTensor(
                f"shared-memory tensor of {byte_size} bytes is over the limit of {self._max_bytes}"
            )
        known = await self._look_up(region, timeout_s, metadata)
        if offset + byte_size > known.byte_size:
            raise InvalidTensor(
                f"shared-memory region {region!r} has {known.byte_size} bytes; "
                f"{byte_size} at offset {offset} lie outside it"
            )
        return _copy(region, known.key, known.offset + offset, byte_size)

    async def _look_up(
        self, region: str, timeout_s: float, metadata: Metadata | None
    ) -> pb.SystemSharedMemoryStatusResponse.RegionStatus:
        request = pb.SystemSharedMemoryStatusRequest(name=region)
        try:
            answer = await self._upstream.call(
                rpc.RPCS["SystemSharedMemoryStatus"].path,
                request.SerializeToString(),
                timeout_s=timeout_s,
                metadata=metadata,
            )
        except UpstreamError as error:
            if error.code_name != "NOT_FOUND":
                raise
            raise InvalidTensor(f"shared-memory region {region!r} is not registered") from None
        status = pb.SystemSharedMemoryStatusResponse.FromString(answer.data)
        found = status.regions.get(region)
        if found is None:
            raise InvalidTensor(
                f"shared-memory region {region!r} is not registered as system memory"
            )
        return found


def _copy(region: str, key: str, offset: int, byte_size: int) -> bytes:
    name = key.removeprefix("/")
    if not _KEY.fullmatch(key) or name.startswith(_RESERVED):
        raise InvalidTensor(f"shared-memory region {region!r} has a key that may not be read")
    try:
        # Without O_NONBLOCK a FIFO put in the object's place would stop the whole proxy here.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(f"{_SHM_FOLDER}/{name}", flags)
    except OSError:
        raise InvalidTensor(
            f"shared-memory region {region!r} cannot be read by the proxy; both containers need "
            "the same /dev/shm"
        ) from None
    try:
        data = os.pread(handle, byte_size, offset)
    except (OSError, OverflowError):  # not a file, or past what a file can be
        raise InvalidTensor(f"shared-memory region {region!r} is not shared memory") from None
    finally:
        os.close(handle)
    if len(data) != byte_size:
        raise InvalidTensor(f"shared-memory region {region!r} is shorter than it was registered")
    return data
