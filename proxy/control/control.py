"""What operators may do with a running proxy: its policy, its records, its life.

One object for the gRPC service and the console; whoever serves it asks `Access` first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from proxy.admin import Status
from proxy.control.access import Access
from proxy.control.errors import (
    ImpossibleError,
    InvalidAskError,
    TooLargeError,
    UnknownNameError,
)
from proxy.control.policies import Policies
from proxy.control.policy_file import PolicyFile
from proxy.control.target import Target
from proxy.records.watches import TooManyWatches

MAX_WATCHES = 16
"""Streams of verdicts at a time."""
MAX_RECORDS = 1000
LABELS = ("", "benign", "adversarial")

_NO_FILE = (
    "this proxy was started without --config: there is no file to change. Start it with one; "
    "GET /config at the admin port shows what is in force"
)


class Control:
    """The operations.

    Args:
        target: what is shown and steered.
        policy_file: where the policy is; None: started without a file.
        access: the rule of the admin port, for pages that are served there.
    """

    def __init__(self, target: Target, policy_file: PolicyFile | None, access: Access) -> None:
        self.access = access
        self._target = target
        self._policies = None if policy_file is None else Policies(target, policy_file)
        self._watches = 0

    async def close(self) -> None:
        """Wait for a change that is being put in force."""
        if self._policies is not None:
            await self._policies.close()

    # -- the policy ------------------------------------------------------------------------------

    async def get_policy(self) -> dict[str, Any]:
        """What the file says and whether that is in force.

        Returns:
            text, digest, path, writable; previous: whether there is a text to go back to;
            generation; in_force: all workers run this text; refusal: why not, if it was refused.

        Raises:
            ControlError: there is no file, or it cannot be read.
        """
        return await self._changing().get()

    async def set_policy(
        self, text: str, *, if_digest: str = "", dry_run: bool = False, who: str = "console"
    ) -> dict[str, Any]:
        """Make a text the policy; return problems, restart, changes, applied, digest.

        Args:
            text: of the whole file.
            if_digest: change only what still has this digest; empty: in any case.
            dry_run: only say what would be.
            who: for the log.

        Raises:
            ControlError: it cannot be changed here, or not any more; nothing was.
        """
        return await self._changing().set(text, if_digest=if_digest, dry_run=dry_run, who=who)

    async def change(
        self,
        model: str,
        settings: Mapping[str, Any],
        *,
        if_digest: str = "",
        dry_run: bool = False,
        who: str = "console",
    ) -> dict[str, Any]:
        """Change settings of one model in the text; returns and raises as `set_policy`.

        Args:
            model: its name.
            settings: field, dotted for nested ones, to value.
        """
        return await self._changing().change(
            model, settings, if_digest=if_digest, dry_run=dry_run, who=who
        )

    async def rollback(
        self, if_digest: str = "", *, dry_run: bool = False, who: str = "console"
    ) -> dict[str, Any]:
        """Swap the text with the one before the last change; as `set_policy`."""
        return await self._changing().rollback(if_digest=if_digest, dry_run=dry_run, who=who)

    def _changing(self) -> Policies:
        if self._policies is None:
            raise ImpossibleError(_NO_FILE)
        return self._policies

    # -- the records -----------------------------------------------------------------------------

    async def suspicious(self, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The notable samples, newest first.

        Raises:
            InvalidAskError: the limit is not from 1 to MAX_RECORDS.
        """
        if not 0 < limit <= MAX_RECORDS:
            raise InvalidAskError(f"limit must be from 1 to {MAX_RECORDS}")
        return [dict(record) for record in await self._target.records(model, limit)]

    async def disagreements(
        self, model: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The samples that the shadow policy judges otherwise, notable or not; as `suspicious`."""
        if not 0 < limit <= MAX_RECORDS:
            raise InvalidAskError(f"limit must be from 1 to {MAX_RECORDS}")
        found = await self._target.records(model, limit, differing=True)
        return [dict(record) for record in found]

    async def watch(
        self, model: str | None = None, everything: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Samples as they are recorded; close the iterator to leave.

        Raises:
            TooLargeError: too many watch.
        """
        if self._watches >= MAX_WATCHES:
            raise TooLargeError(f"{MAX_WATCHES} watch already; end one of them")
        self._watches += 1
        try:
            watch: Any = self._watch(model, everything)
            async with aclosing(watch) as records:
                async for record in records:
                    yield dict(record)
        finally:
            self._watches -= 1

    def _watch(self, model: str | None, everything: bool) -> AsyncIterator[Mapping[str, Any]]:
        try:
            return self._target.watch(model, everything)
        except TooManyWatches as error:
            raise TooLargeError(str(error)) from error

    async def label(self, id_: str, label: str) -> None:
        """Note what a sample was.

        Raises:
            InvalidAskError: that is no label.
            UnknownNameError: the sample is not kept.
        """
        if label not in LABELS:
            raise InvalidAskError("label must be benign, adversarial, or empty to take it back")
        if not await self._target.label(id_, label):
            raise UnknownNameError("there is no such sample, or it is kept no longer")

    async def scores(self, model: str) -> Mapping[str, Any]:
        """The recorded scores of a model, by column.

        Raises:
            UnknownNameError: no such model is configured.
        """
        await self._expect(model)
        return await self._target.scores(model)

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """What a policy would do with the recorded and the evaluated samples; as `scores`."""
        await self._expect(model)
        return await self._target.explore(model, candidate)

    async def _expect(self, model: str) -> None:
        if model not in (await self._target.config())["models"]:
            raise UnknownNameError("no such model is configured")

    # -- its life --------------------------------------------------------------------------------

    async def status(self) -> Status:
        """How it is doing."""
        return await self._target.status()

    async def drain(self) -> Status:
        """Start the drain; how it is doing then."""
        await self._target.drain()
        return await self._target.status()

    async def history(self) -> Mapping[str, Any]:
        """What is known of query attacks."""
        return await self._target.history()

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift quarantines; return how many."""
        return await self._target.forget(principal, model)
