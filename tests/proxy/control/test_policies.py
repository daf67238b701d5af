"""Changes one at a time: judged, written, put in force, or the old text back."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from proxy.control.errors import (
    ImpossibleError,
    InvalidAskError,
    NoAnswerError,
    StaleDigestError,
    UnknownNameError,
)
from proxy.control.policies import Answer, Policies
from proxy.control.policy_file import PolicyFile, digest_of
from tests.proxy.control.target import PolicyTarget

OLD = """\
# Mine.
max_in_flight: 5   # few
models:
  cnn:
    fpr: 0.01   # share
"""
NEW = OLD.replace("0.01", "0.02")


class Scene:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "policy.yaml"
        self.path.write_text(OLD)
        self.target = PolicyTarget(self.path)
        self.policies = Policies(self.target, PolicyFile(self.path))

    async def set(self, text: str, if_digest: str = "", *, dry_run: bool = False) -> Answer:
        return await self.policies.set(text, if_digest=if_digest, dry_run=dry_run, who="me")

    async def change(self, model: str, dry_run: bool = False, **settings: object) -> Answer:
        return await self.policies.change(model, settings, if_digest="", dry_run=dry_run, who="me")

    async def rollback(self, if_digest: str = "") -> Answer:
        return await self.policies.rollback(if_digest=if_digest, dry_run=False, who="me")

    @property
    def untouched(self) -> bool:
        files = [each.name for each in self.path.parent.iterdir()]
        return self.path.read_text() == OLD and files == ["policy.yaml"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_new_text_is_in_force(scene: Scene) -> None:
    answer = await scene.set(NEW)
    assert answer == {
        "problems": [],
        "restart": [],
        "changes": ["cnn.fpr: 0.01 -> 0.02"],
        "applied": True,
        "digest": digest_of(NEW),
    }
    assert scene.target.running.models["cnn"].fpr == 0.02
    found = await scene.policies.get()
    assert (found["text"], found["digest"], found["in_force"]) == (NEW, digest_of(NEW), True)
    assert (found["previous"], found["writable"], found["generation"]) == (True, True, 2)
    assert (found["path"], found["refusal"]) == (str(scene.path), "")


async def test_a_dry_run_says_the_same_and_does_nothing(scene: Scene) -> None:
    answer = await scene.set(NEW.replace("few", "so few") + "drain_seconds: 1\n", dry_run=True)
    assert answer["changes"] == ["cnn.fpr: 0.01 -> 0.02", "drain_seconds: 30.0 -> 1.0"]
    assert (answer["restart"], answer["applied"]) == (["drain_seconds"], False)
    assert scene.untouched
    assert scene.target.generation == 1


async def test_a_broken_text_is_not_written_and_its_errors_have_places(scene: Scene) -> None:
    answer = await scene.set("models:\n  cnn: {fprr: 1}\nmax_in_flight: -1\n")
    assert answer["problems"] == [
        f"{scene.path}:2:9: models.cnn.fprr: unknown key; did you mean 'fpr'?",
        f"{scene.path}:3:16: max_in_flight: input should be greater than 0 (got -1)",
    ]
    (problem,) = (await scene.set("models: [\n"))["problems"]
    assert problem.startswith(f"{scene.path}:2:1: not valid YAML")
    assert scene.untouched


async def test_what_the_target_finds_is_a_problem_too(scene: Scene) -> None:
    scene.target.problems = ["models.cnn: its calibration is stale"]
    answer = await scene.set(NEW)
    assert (answer["problems"], answer["applied"]) == (scene.target.problems, False)
    assert scene.untouched
    scene.target.problems = None
    with pytest.raises(NoAnswerError, match="no worker answers"):
        await scene.set(NEW)


async def test_a_refusal_on_reload_restores_the_text_before(scene: Scene) -> None:
    scene.target.refusing = {digest_of(NEW)}
    answer = await scene.set(NEW)
    assert not answer["applied"]
    assert answer["problems"] == [
        "refused when it was put in force, the text before it is restored: no room for its networks"
    ]
    assert scene.untouched
    assert (await scene.policies.get())["in_force"]


@pytest.mark.parametrize("newer", ["# by hand\n", None])
async def test_a_refused_text_that_somebody_mended_meanwhile_is_left_alone(
    scene: Scene, newer: str | None
) -> None:
    scene.target.refusing = {digest_of(NEW)}
    scene.target.gate.clear()
    ask = asyncio.ensure_future(scene.set(NEW))
    await scene.target.reloading.wait()
    scene.path.unlink() if newer is None else scene.path.write_text(newer)
    scene.target.gate.set()
    (problem,) = (await ask)["problems"]
    assert "changed by somebody else meanwhile, which is left alone: no room" in problem
    assert newer == (scene.path.read_text() if scene.path.exists() else None)


async def test_a_stale_digest_changes_nothing(scene: Scene) -> None:
    for ask in (scene.set(NEW, "0" * 64), scene.rollback("0" * 64)):
        with pytest.raises(StaleDigestError, match=digest_of(OLD)):
            await ask
    assert scene.untouched
    assert (await scene.set(NEW, digest_of(OLD)))["applied"]


async def test_of_two_at_once_the_second_is_told(scene: Scene) -> None:
    scene.target.check_gate.clear()
    asks = [
        asyncio.ensure_future(scene.set(text, digest_of(OLD)))
        for text in (NEW, OLD.replace("0.01", "0.03"))
    ]
    await scene.target.checking.wait()
    scene.target.check_gate.set()
    first, second = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(first, dict)
    assert first["applied"]
    assert isinstance(second, StaleDigestError)
    assert scene.path.read_text() == NEW


async def test_somebody_with_an_editor_is_not_overwritten(scene: Scene) -> None:
    scene.target.check_gate.clear()
    ask = asyncio.ensure_future(scene.set(NEW))
    await scene.target.checking.wait()
    scene.path.write_text("# by hand\n")
    scene.target.check_gate.set()
    with pytest.raises(StaleDigestError):
        await ask
    assert scene.path.read_text() == "# by hand\n"


async def test_rollback_goes_back_and_forth(scene: Scene) -> None:
    with pytest.raises(ImpossibleError, match="nothing to go back to"):
        await scene.rollback()
    await scene.set(NEW)
    back = await scene.rollback(digest_of(NEW))
    assert (back["changes"], back["applied"]) == (["cnn.fpr: 0.02 -> 0.01"], True)
    assert scene.path.read_text() == OLD
    assert (await scene.rollback())["changes"] == ["cnn.fpr: 0.01 -> 0.02"]
    assert scene.path.read_text() == NEW


async def test_one_setting_changes_and_the_comments_stay(scene: Scene) -> None:
    answer = await scene.change("cnn", fpr=0.02)
    assert (answer["changes"], answer["applied"]) == (["cnn.fpr: 0.01 -> 0.02"], True)
    assert scene.path.read_text() == NEW


async def test_a_setting_that_is_wrong_is_a_problem_with_its_place(scene: Scene) -> None:
    answer = await scene.change("cnn", fpr=2)
    assert answer["problems"] == [
        f"{scene.path}:5:10: models.cnn.fpr: input should be less than 1 (got 2)"
    ]
    assert scene.untouched
    with pytest.raises(UnknownNameError, match="no such model"):
        await scene.change("resnet", fpr=0.1)
    with pytest.raises(InvalidAskError):
        await scene.change("cnn")


async def test_a_change_of_a_broken_file_is_refused(scene: Scene) -> None:
    scene.path.write_text("models: [")
    with pytest.raises(ImpossibleError, match="mend the file first"):
        await scene.change("cnn", fpr=0.1)
    answer = await scene.set(NEW)  # a whole text mends it
    assert (answer["changes"], answer["applied"]) == (["cnn.fpr: 0.01 -> 0.02"], True)


async def test_settings_of_another_model_do_not_change_by_the_way(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    shared = "models:\n  cnn:\n    cascade: &c {clean: 0.4}\n  vit: {cascade: *c}\n"
    await scene.set(shared)
    with pytest.raises(ImpossibleError, match="other parts of the file would change"):
        await scene.change("cnn", **{"cascade.clean": 0.3})
    assert scene.path.read_text() == shared


async def test_a_caller_who_leaves_early_changes_nothing(scene: Scene) -> None:
    scene.target.check_gate.clear()
    ask = asyncio.ensure_future(scene.set(NEW))
    await scene.target.checking.wait()
    ask.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ask
    assert scene.untouched
    scene.target.check_gate.set()
    assert (await scene.set(NEW))["applied"]  # and nobody has to wait for him


async def test_a_caller_who_leaves_late_does_not_leave_it_half_done(scene: Scene) -> None:
    scene.target.gate.clear()
    ask = asyncio.ensure_future(scene.set(NEW))
    await scene.target.reloading.wait()
    ask.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ask
    closing = asyncio.ensure_future(scene.policies.close())
    scene.target.gate.set()
    await closing
    assert scene.target.running.models["cnn"].fpr == 0.02
    assert (await scene.policies.get())["in_force"]


async def test_the_same_text_again_is_only_put_in_force(scene: Scene) -> None:
    scene.path.write_text(NEW)  # by hand, and not yet seen
    answer = await scene.set(NEW)
    assert (answer["changes"], answer["applied"]) == ([], True)
    assert not scene.path.with_name("policy.yaml.previous").exists()
    assert scene.target.running.models["cnn"].fpr == 0.02


async def test_the_log_says_who_and_what_on_one_line(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="proxy.control")
    await scene.set('models: {"a\\nb\\x1b": {}}')
    line = json.loads(caplog.records[-1].getMessage())
    assert (line["event"], line["who"]) == ("policy applied", "me")
    assert line["old"] == digest_of(OLD)
    assert "a\nb\x1b: added, mode observe, action flag" in line["changes"]
    assert "\n" not in caplog.records[-1].getMessage()
    assert "\x1b" not in caplog.records[-1].getMessage()
