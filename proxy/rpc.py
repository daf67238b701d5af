"""Every RPC of the protocol and the group it belongs to; what policy allows is decided elsewhere.

The groups are those of Triton's restricted-protocol option, so that operators meet one vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

SERVICE = "inference.GRPCInferenceService"

ALWAYS_ON = frozenset({"health", "metadata", "inference"})
"""Groups that cannot be refused: without them nothing that speaks the protocol works."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC of the service."""

    name: str
    group: str
    """The name the configuration uses under `rpc.allow`, or one of `ALWAYS_ON`."""
    streaming: bool = False
    """True for the one bidirectional stream; all others are unary."""

    @property
    def path(self) -> str:
        """The method path on the wire, `/inference.GRPCInferenceService/NAME`."""
        return f"/{SERVICE}/{self.name}"


_GROUPS = {
    "health": ("ServerLive", "ServerReady", "ModelReady"),
    "metadata": ("ServerMetadata", "ModelMetadata"),
    "inference": ("ModelInfer", "ModelStreamInfer"),
    "model-config": ("ModelConfig",),
    "statistics": ("ModelStatistics",),
    "model-repository": ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    "shared-memory": (
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
    ),
    "trace": ("TraceSetting",),
    "logging": ("LogSettings",),
}

RPCS = MappingProxyType(
    {
        name: Rpc(name, group, streaming=name == "ModelStreamInfer")
        for group, names in _GROUPS.items()
        for name in names
    }
)
"""By name. A test compares the names with the service descriptor and with tritonclient's."""

BY_PATH = MappingProxyType({rpc.path: rpc for rpc in RPCS.values()})
"""By method path."""

INFER = RPCS["ModelInfer"]
STREAM_INFER = RPCS["ModelStreamInfer"]
