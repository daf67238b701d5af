"""Changes to the policy, one at a time: judged first, written whole, and taken back if refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config import Config
from proxy.control.differences import Difference, changes, differences
from proxy.control.edits import edited
from proxy.control.errors import (
    ImpossibleError,
    NoAnswerError,
    StaleDigestError,
    UnknownNameError,
)
from proxy.control.policy_file import PolicyFile, Texts, digest_of, expect_text
from proxy.control.target import Target
from proxy.errors import ConfigError
from proxy.tasks import Tasks
from proxy.watcher import needs_restart

log = logging.getLogger(__name__)

Answer = dict[str, Any]
"""problems, restart, changes, applied, digest."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A change that was thought through."""

    before: Texts
    wanted: str
    problems: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def answer(self, *, applied: bool = False, problems: tuple[str, ...] | None = None) -> Answer:
        return {
            "problems": list(self.problems if problems is None else problems),
            "restart": list(self.restart),
            "changes": list(self.changes),
            "applied": applied,
            "digest": digest_of(self.wanted),
        }


class Policies:
    """Reads and changes a target's policy file.

    Args:
        target: whose policy it is; judges texts and puts the file in force.
        file: the file.
    """

    def __init__(self, target: Target, file: PolicyFile) -> None:
        self._target = target
        self._file = file
        self._turn = asyncio.Lock()
        self._tasks = Tasks()

    async def close(self) -> None:
        """Wait for a change that is being put in force."""
        async with self._turn:
            pass

    async def get(self) -> Answer:
        """As `Control.get_policy`."""
        texts = await asyncio.to_thread(self._file.read)
        known = await self._target.policy()
        digest = digest_of(texts.current)
        return {
            "text": texts.current,
            "digest": digest,
            "path": str(self._file.path),
            "writable": self._file.writable(),
            "previous": texts.previous is not None,
            "generation": known["generation"],
            "in_force": set(known["digests"]) == {digest},
            "refusal": known["refusal"],
        }

    async def set(self, text: str, *, if_digest: str, dry_run: bool, who: str) -> Answer:
        """As `Control.set_policy`."""
        return await self._do(lambda _: text, if_digest, dry_run=dry_run, who=who)

    async def rollback(self, *, if_digest: str, dry_run: bool, who: str) -> Answer:
        """As `Control.rollback`."""

        def previous(texts: Texts) -> str:
            if texts.previous is None:
                raise ImpossibleError("there is nothing to go back to: no change was made here")
            return texts.previous

        return await self._do(previous, if_digest, dry_run=dry_run, who=who)

    async def change(
        self,
        model: str,
        settings: Mapping[str, Any],
        *,
        if_digest: str,
        dry_run: bool,
        who: str,
    ) -> Answer:
        """As `Control.change`."""

        def changed(texts: Texts) -> str:
            try:
                config = self._file.parse(texts.current)
            except ConfigError as error:
                raise ImpossibleError(f"mend the file first:\n{error}") from error
            if model not in config.models:
                raise UnknownNameError("no such model is configured: add it to the file first")
            return edited(texts.current, model, settings)

        return await self._do(changed, if_digest, dry_run=dry_run, who=who, only=model)

    async def _do(
        self,
        make: Callable[[Texts], str],
        if_digest: str,
        *,
        dry_run: bool,
        who: str,
        only: str | None = None,
    ) -> Answer:
        """Plan, and unless it is a dry run or there are problems, carry out.

        A caller who leaves while it is planned leaves everything as it was; once the file is being
        written the change is finished without him.
        """
        await self._turn.acquire()
        task: asyncio.Task[Answer] | None = None
        try:
            plan = await self._plan(make, if_digest, only)
            if dry_run or plan.problems:
                return plan.answer()
            task = self._tasks.start(self._carry_out(plan, who), quiet=True)
            task.add_done_callback(lambda _: self._turn.release())
        finally:
            if task is None:
                self._turn.release()
        return await asyncio.shield(task)

    # -- before ----------------------------------------------------------------------------------

    async def _plan(self, make: Callable[[Texts], str], if_digest: str, only: str | None) -> _Plan:
        before = await asyncio.to_thread(self._file.read)
        _expect(before, if_digest)
        wanted = await asyncio.to_thread(make, before)
        expect_text(wanted)
        try:
            new = await asyncio.to_thread(self._file.parse, wanted)
        except ConfigError as error:
            return _Plan(before, wanted, tuple(str(error).splitlines()))
        found = await self._target.check_policy(wanted)
        if found is None:
            raise NoAnswerError("no worker answers: what the policy says cannot be checked now")
        in_force = Config.model_validate(await self._target.config())
        different = await asyncio.to_thread(self._differences, before.current, new, in_force)
        if only is not None and any(d.path[:2] != ("models", only) for d in different):
            raise ImpossibleError("other parts of the file would change, too: edit the file itself")
        return _Plan(
            before,
            wanted,
            tuple(found),
            tuple(needs_restart(in_force, new)),
            tuple(changes(different)),
        )

    def _differences(self, text: str, new: Config, in_force: Config) -> list[Difference]:
        try:
            old = self._file.parse(text)
        except ConfigError:
            old = in_force  # what lies there is no policy
        return differences(old, new)

    # -- after -----------------------------------------------------------------------------------

    async def _carry_out(self, plan: _Plan, who: str) -> Answer:
        if plan.wanted != plan.before.current:
            await asyncio.to_thread(self._write, plan.before, plan.wanted)
        if await self._target.reload():
            _tell("applied", plan, who)
            return plan.answer(applied=True)
        why = (await self._target.policy())["refusal"] or "the log says why"
        what = await self._take_back(plan)
        _tell("refused", plan, who)
        return plan.answer(problems=(f"refused when it was put in force, {what}: {why}",))

    async def _take_back(self, plan: _Plan) -> str:
        """Put the text before a refused one on disk again; say what is there now."""
        if plan.wanted == plan.before.current:
            return "the file is as it was"
        if not await asyncio.to_thread(self._restore, plan):
            return "and the file has been changed by somebody else meanwhile, which is left alone"
        await self._target.reload()
        return "the text before it is restored"

    def _restore(self, plan: _Plan) -> bool:
        try:
            _expect(self._file.read(), digest_of(plan.wanted))  # somebody with an editor
        except (StaleDigestError, ImpossibleError):
            return False
        self._file.write(plan.before)
        return True

    def _write(self, before: Texts, wanted: str) -> None:
        _expect(self._file.read(), digest_of(before.current))  # somebody with an editor
        self._file.write(Texts(wanted, before.current))


def _expect(texts: Texts, digest: str) -> None:
    now = digest_of(texts.current)
    if digest and digest != now:
        raise StaleDigestError(
            f"the policy has changed meanwhile, its digest is now {now}: read it again"
        )


def _tell(event: str, plan: _Plan, who: str) -> None:
    """One line of JSON, which no name of a model can break."""
    line = {
        "event": f"policy {event}",
        "who": who,
        "old": digest_of(plan.before.current),
        "new": digest_of(plan.wanted),
        "changes": plan.changes,
        "restart": plan.restart,
    }
    log.warning("%s", json.dumps(line)) if event == "refused" else log.info("%s", json.dumps(line))
