"""`breakwater.v1.Control` over gRPC: access, messages and statuses; what is done is `Control`'s."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from operator import methodcaller
from typing import Any

import grpc
from google.protobuf.message import Message

from proxy import __version__
from proxy.admin import Status
from proxy.control import messages
from proxy.control.access import Access
from proxy.control.control import Control
from proxy.control.edits import value_of
from proxy.control.errors import ControlError, InvalidAskError
from proxy.errors import ConfigError
from proxy.pb.breakwater.v1 import control_pb2 as pb

log = logging.getLogger(__name__)

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Control"]

READING = frozenset(
    {
        *("GetPolicy", "WatchVerdicts", "ListSuspicious", "ListDisagreements", "GetScores"),
        *("Explore", "GetStatus", "ListHistory"),
    }
)
"""The others change something, or make a worker load what they name: they need a token or a
certificate even where reading is open."""

_LIMIT = 100


class ControlService(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped in grpcio
    """Answers the calls.

    Args:
        control: does what is asked.
        access: the rule of this port.
        certified: clients have shown a certificate, which is as good as a token.
    """

    def __init__(self, control: Control, access: Access, *, certified: bool) -> None:
        self._control = control
        self._access = access
        self._certified = certified
        self._handlers = {
            f"/{DESCRIPTOR.full_name}/{method.name}": self._handler(method)
            for method in DESCRIPTOR.methods
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a call; None where the service has no such method."""
        return self._handlers.get(details.method)

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        """A method of ours by its name in the description, behind the gate."""
        answer = getattr(self, f"_{method.name}")
        request_of = getattr(pb, method.input_type.name).FromString
        kind = grpc.unary_unary_rpc_method_handler
        behaviour: Callable[..., Any] = self._unary(method.name, answer)
        if method.server_streaming:
            kind = grpc.unary_stream_rpc_method_handler
            behaviour = self._stream(method.name, answer)
        return kind(behaviour, request_of, methodcaller("SerializeToString"))

    def _unary(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(request: Message, context: grpc.aio.ServicerContext) -> Message:
            await self._admit(name, context)
            try:
                found: Message = await answer(request, _who(context))
                return found
            except Exception as error:  # the edge: every failure is a status
                await _end(name, context, error)
                raise

        return guarded

    def _stream(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(request: Message, context: grpc.aio.ServicerContext) -> None:
            await self._admit(name, context)
            # The client learns at once that it watches, although there may be nothing to see.
            await context.send_initial_metadata(())
            try:
                async with aclosing(answer(request)) as messages_:
                    async for message in messages_:
                        await context.write(message)
            except Exception as error:  # noqa: BLE001 (the edge, as above)
                await _end(name, context, error)

        return guarded

    async def _admit(self, name: str, context: grpc.aio.ServicerContext) -> None:
        """Abort the call unless its caller may make it."""
        given = [str(v) for k, v in context.invocation_metadata() or () if k == "authorization"]
        if self._certified and not self._access.wants_token:
            return
        refusal = self._access.allows(given[0] if len(given) == 1 else None, name not in READING)
        if refusal is not None:
            await context.abort(grpc.StatusCode[refusal.code], str(refusal))

    # -- the policy ------------------------------------------------------------------------------

    async def _GetPolicy(self, _: pb.GetPolicyRequest, __: str) -> pb.Policy:
        found = await self._control.get_policy()
        return messages.policy(found)

    async def _SetPolicy(self, request: pb.SetPolicyRequest, who: str) -> pb.PolicyChange:
        answer = await self._control.set_policy(
            request.text, if_digest=request.if_digest, dry_run=request.dry_run, who=who
        )
        return messages.change(answer)

    async def _ChangePolicy(self, request: pb.ChangePolicyRequest, who: str) -> pb.PolicyChange:
        settings = {key: value_of(key, text) for key, text in request.settings.items()}
        answer = await self._control.change(
            request.model,
            settings,
            if_digest=request.if_digest,
            dry_run=request.dry_run,
            who=who,
        )
        return messages.change(answer)

    async def _RollbackPolicy(self, request: pb.RollbackPolicyRequest, who: str) -> pb.PolicyChange:
        answer = await self._control.rollback(request.if_digest, dry_run=request.dry_run, who=who)
        return messages.change(answer)

    # -- the records -----------------------------------------------------------------------------

    async def _WatchVerdicts(
        self, request: pb.WatchVerdictsRequest
    ) -> AsyncGenerator[pb.Record, None]:
        watch = self._control.watch(request.model or None, request.everything)
        async with aclosing(watch) as records:
            async for record in records:
                yield messages.record(record)

    async def _ListSuspicious(self, request: pb.ListSuspiciousRequest, _: str) -> pb.Records:
        found = await self._control.suspicious(request.model or None, request.limit or _LIMIT)
        return await asyncio.to_thread(_listed, found)

    async def _ListDisagreements(self, request: pb.ListDisagreementsRequest, _: str) -> pb.Records:
        found = await self._control.disagreements(request.model or None, request.limit or _LIMIT)
        return await asyncio.to_thread(_listed, found)

    async def _LabelRequest(self, request: pb.Label, who: str) -> pb.LabelResponse:
        await self._control.label(request.id, request.label)
        _tell("label", who, id=request.id, label=request.label)
        return pb.LabelResponse()

    async def _GetScores(self, request: pb.GetScoresRequest, _: str) -> pb.Json:
        return await messages.as_json(await self._control.scores(request.model))

    async def _Explore(self, request: pb.ExploreRequest, _: str) -> pb.Json:
        candidate = _object(request.candidate_json)
        return await messages.as_json(await self._control.explore(request.model, candidate))

    # -- its life --------------------------------------------------------------------------------

    async def _GetStatus(self, _: pb.GetStatusRequest, __: str) -> pb.Status:
        return _status(await self._control.status())

    async def _Drain(self, _: pb.DrainRequest, who: str) -> pb.Status:
        _tell("drain", who)
        return _status(await self._control.drain())

    async def _ListHistory(self, _: pb.ListHistoryRequest, __: str) -> pb.History:
        return messages.history(await self._control.history())

    async def _ClearHistory(
        self, request: pb.ClearHistoryRequest, who: str
    ) -> pb.ClearHistoryResponse:
        if bool(request.principal) == request.everybody:
            raise InvalidAskError("whose quarantine? Give either principal or everybody")
        cleared = await self._control.forget(request.principal or None, request.model or None)
        whose = request.principal or "everybody"
        _tell("history cleared", who, principal=whose, model=request.model, cleared=cleared)
        return pb.ClearHistoryResponse(cleared=cleared)


async def _end(name: str, context: grpc.aio.ServicerContext, error: Exception) -> None:
    """End a call with the status of what went wrong; a defect shows no details."""
    if isinstance(error, ControlError):
        await context.abort(grpc.StatusCode[error.code], str(error))
    if isinstance(error, ConfigError):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    if not isinstance(error, grpc.aio.AbortError):
        log.error("control call %s failed", name, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error: the log says more")


def _who(context: grpc.aio.ServicerContext) -> str:
    """The caller's certificate by its common name, or that it had a token."""
    names = (context.auth_context() or {}).get("x509_common_name", ())
    shown = ", ".join(name.decode(errors="replace") for name in names)
    return f"certificate {shown}" if shown else "token"


def _tell(event: str, who: str, **what: Any) -> None:
    log.info("%s", json.dumps({"event": event, "who": who, **what}))


def _object(text: str) -> Mapping[str, Any] | None:
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidAskError("candidate_json must be a JSON object")
    return value


def _listed(records: Sequence[Mapping[str, Any]]) -> pb.Records:
    """For a thread of its own: a picture in each makes megabytes of them."""
    return pb.Records(records=map(messages.record, records))


def _status(status: Status) -> pb.Status:
    return pb.Status(
        ready=status.ready,
        draining=status.draining,
        in_flight=status.in_flight,
        workers=status.workers,
        workers_ready=status.workers_ready,
        version=__version__,
    )
