"""Starts MLServer on a folder, answering ModelConfig as Triton does: perf_analyzer asks for it.

Runs in MLServer's own environment: `mlserver_start.py FOLDER UPSTREAM`. Every other call is
MLServer's own.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from mlserver.cli.serve import load_settings
from mlserver.grpc.server import GRPCServer
from mlserver.server import MLServer

SERVICE = "inference.GRPCInferenceService"


class ConfiguredServer(GRPCServer):  # type: ignore[misc]
    """MLServer's gRPC server with one more method."""

    upstream = ""

    def _create_server(self) -> Any:
        server = super()._create_server()
        ask = grpc.aio.insecure_channel(self.upstream).unary_unary(f"/{SERVICE}/ModelConfig")

        async def config(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            answer: bytes = await ask(request)
            return answer

        handler = grpc.unary_unary_rpc_method_handler(config)
        more = grpc.method_handlers_generic_handler(SERVICE, {"ModelConfig": handler})
        server.add_generic_rpc_handlers((more,))
        return server


async def main() -> None:
    """Serve until a signal."""
    folder, ConfiguredServer.upstream = sys.argv[1:]
    settings, models = await load_settings(folder)
    server = MLServer(settings)
    server._grpc_server = ConfiguredServer(
        settings, server._data_plane, server._model_repository_handlers
    )
    await server.start(models)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        pass
    else:
        uvloop.install()
    asyncio.run(main())
