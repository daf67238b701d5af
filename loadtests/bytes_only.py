"""The least a grpc.aio proxy can do: bytes in, bytes out. The yardstick for Breakwater's pipeline.

No policy, no metadata, no metrics, no errors translated. Same event loop, allocator settings and
message bounds as Breakwater, so that the difference is the pipeline and nothing else. With
`--relay` it also passes on metadata and deadlines, which no proxy in production can leave out.
"""

from __future__ import annotations

import argparse

import grpc
import uvloop

from proxy.allocator import keep_large_buffers

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class PassThrough(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards every unary RPC to the channel by its path."""

    def __init__(self, channel: grpc.aio.Channel, *, relay: bool) -> None:
        self._channel = channel
        self._relay = relay
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler for a path, made once."""
        method = handler_call_details.method
        if method not in self._handlers:
            rpc = self._channel.unary_unary(method)

            async def forward(message: bytes, _: grpc.aio.ServicerContext) -> bytes:
                return await rpc(message)  # type: ignore[no-any-return]

            async def relay(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
                metadata = [
                    pair for pair in context.invocation_metadata() if pair[0] != "user-agent"
                ]
                call = rpc(message, timeout=context.time_remaining(), metadata=metadata or None)
                answer: bytes = await call
                if initial := await call.initial_metadata():
                    await context.send_initial_metadata(initial)
                if trailing := await call.trailing_metadata():
                    context.set_trailing_metadata(trailing)
                return answer

            handler = relay if self._relay else forward
            self._handlers[method] = grpc.unary_unary_rpc_method_handler(handler)
        return self._handlers[method]


async def serve(listen: str, upstream: str, *, relay: bool) -> None:
    """Run until the process is ended."""
    async with grpc.aio.insecure_channel(upstream, options=UNLIMITED) as channel:
        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((PassThrough(channel, relay=relay),))
        server.add_insecure_port(listen)
        await server.start()
        await server.wait_for_termination()


def main() -> None:
    """Parse the two addresses and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="H:P")
    parser.add_argument("--upstream", required=True, metavar="H:P")
    parser.add_argument("--relay", action="store_true", help="pass on metadata and deadlines")
    chosen = parser.parse_args()
    keep_large_buffers()
    uvloop.run(serve(chosen.listen, chosen.upstream, relay=chosen.relay))


if __name__ == "__main__":
    main()
