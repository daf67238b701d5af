"""The search finds what is there, twice the same, and stops when told."""

from __future__ import annotations

import time

import pytest

from tests.tuning.search import scene
from tuning.search.optimise import Found, Limits, Search
from tuning.search.recorded import record

LIMITS = Limits(1.8, 0.012, 0.01)
SPACE = scene.space()
RECORDED = record(scene.made())


def search(count: int = 60, seed: int = 0) -> Search:
    return Search(
        SPACE,
        scene.bench(RECORDED, SPACE),
        scene.paths(SPACE),
        LIMITS,
        tuple(RECORDED.searched.attacks),
        count,
        seed,
    )


def names(found: Found) -> list[str]:
    return [trial.candidate.name for trial in found.trials]


def test_different_candidates_and_the_same_again() -> None:
    ticks: list[int] = []
    first = search().run(list(SPACE.first()), lambda: ticks.append(1))
    assert len(first.trials) == len(set(names(first))) == len(ticks) == 60
    assert names(first) == names(search().run(list(SPACE.first())))
    assert names(first) != names(search(seed=1).run(list(SPACE.first())))
    assert {c.name for c in SPACE.first()} <= set(names(first))


def test_two_hundred_take_far_less_than_two_minutes() -> None:
    started = time.process_time()
    found = search(200).run(list(SPACE.first()))
    assert len(found.trials) == 200
    assert time.process_time() - started < 60
    assert any(trial.keeps(LIMITS) for trial in found.trials)


def test_it_finds_the_only_detectors_that_see_the_attacks() -> None:
    found = search(200).run(list(SPACE.first()))
    fitting = [trial for trial in found.trials if trial.keeps(LIMITS)]
    best = min(fitting, key=lambda t: t.outcome.harm(RECORDED.searched.attacks))
    assert best.candidate.action in ("purify", "block")
    # Within 1.8 ms there is no room for all.
    assert {"high_frequency", "mirror_view"} & set(best.candidate.detectors)
    assert best.outcome.harm(RECORDED.searched.attacks) < 0.25


def test_a_space_smaller_than_the_wish_ends() -> None:
    over = scene.space(detectors=[{"name": "srm"}])
    small = Search(
        over, scene.bench(RECORDED, over), scene.paths(over), LIMITS, (), 10_000 // 50, 0
    )
    found = small.run(list(over.first()))
    assert 5 < len(found.trials) < 200


def test_an_interrupt_leaves_what_was_tried() -> None:
    def interrupt() -> None:
        if len(ticks) == 7:
            raise KeyboardInterrupt
        ticks.append(1)

    ticks: list[int] = []
    found = search().run((), interrupt)
    assert found.interrupted
    assert len(found.trials) == 8


def test_an_interrupt_before_anything_is_one() -> None:
    class Stopped(type(search().bench)):  # type: ignore[misc]
        def outcome(self, *_: object) -> object:
            raise KeyboardInterrupt

    begun = search()
    stopped = Search(SPACE, Stopped(RECORDED, SPACE, None), begun.paths, LIMITS, (), 5)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()


def test_limits_say_what_is_exceeded() -> None:
    trial = search().trial(next(SPACE.first()))
    tight = Limits(0.1, 0.0001, 0.0)
    over = tight.violations(trial.outcome, trial.predicted)
    assert over["added p99"] > 1
    assert not trial.keeps(tight)
    assert trial.keeps(Limits(100, 1, 1))
