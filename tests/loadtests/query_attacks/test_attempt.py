from __future__ import annotations

import numpy as np
import pytest

from loadtests.query_attacks.blinding import Blinding
from tests.loadtests.query_attacks.opponents import (
    BRIGHT,
    LINF,
    Script,
    attempt,
    flat,
    target,
)
from tuning.evaluate.attempt import CERTAIN, Asked, Attempt, Bound, Habits, Over
from tuning.evaluate.oracle import Answer


def test_an_answer_tells_its_label_and_margin() -> None:
    answer = Answer(np.array([1, 5, 3], np.float32))
    assert (answer.label, answer.margin, answer.is_refused) == (1, 2, False)
    refused = Answer(None)
    assert (refused.label, refused.margin, refused.is_refused) == (-1, 0, True)


def test_bounds_hold_up_to_float_rounding() -> None:
    clean = flat(100)
    assert Bound("linf", 8 / 255).holds(flat(108), clean)
    assert not Bound("linf", 8 / 255).holds(flat(108.1), clean)
    one = clean.copy()
    one[0, 0, 0] += 1
    assert Bound("l2", 1.0).holds(one, clean)
    one[0, 0, 1] += 0.1  # (1 + 0.01) ** 0.5 = 1.005
    assert not Bound("l2", 1.0).holds(one, clean)


def test_the_budget_is_a_hard_stop() -> None:
    tried = attempt(budget=3)
    for level in (1, 2, 3):
        tried.look(flat(level))
    assert tried.left == 0
    with pytest.raises(Over) as over:
        tried.look(flat(4))
    assert over.value.ended == "budget"
    assert len(tried.log) == 3
    tried.look(flat(1))  # what is known costs nothing


def test_a_repeat_is_remembered_by_look_and_sent_by_ask() -> None:
    script = Script([0])
    tried = attempt(script)
    tried.look(flat(1))
    tried.look(flat(1))
    assert len(script.asked) == 1
    tried.ask(flat(1))
    tried.ask(flat(1))
    assert len(script.asked) == 3


def test_the_clean_image_need_not_be_sent() -> None:
    script = Script([0])
    tried = attempt(script, skip_clean=True)
    assert tried.look(target().clean).tolist() == [CERTAIN, 0, 0]
    assert not script.asked
    attempt(script).look(target().clean)
    assert len(script.asked) == 1


def test_a_win_is_wrong_within_the_bound_for_both_models() -> None:
    tried = attempt()
    assert tried.look(flat(160)).argmax() == 1  # wrong, but out of bounds
    with pytest.raises(Over) as over:
        tried.look(flat(130))
    assert over.value.ended == "won"
    assert [asked.in_bound for asked in tried.log] == [False, True]


def test_an_error_of_the_defence_alone_is_no_win() -> None:
    tried = attempt(Script([1]))
    tried.look(flat(127))  # answered wrongly; the bare model is right
    assert len(tried.log) == 1


def test_refusals_are_read_as_no_information_until_the_attacker_gives_up() -> None:
    tried = attempt(Script([0, None, None, 0, None]), give_up=3)
    first = tried.look(flat(1))
    for level in (2, 3):
        assert tried.look(flat(level)).tolist() == first.tolist()
    tried.look(flat(4))  # an answer between: the count starts again
    for level in (5, 6):
        tried.look(flat(level))
    with pytest.raises(Over) as over:
        tried.look(flat(7))
    assert over.value.ended == "gave up"


def test_ask_tells_refusals_and_does_not_give_up() -> None:
    tried = attempt(Script([None]), budget=40)
    assert all(tried.ask(flat(1)).is_refused for _ in range(40))


def test_queries_can_be_rounded() -> None:
    script = Script([0])
    attempt(script, round8=True).look(flat(100.4))
    np.testing.assert_allclose(script.asked[0], flat(100), atol=1e-7)
    attempt(script).look(flat(100.4))
    np.testing.assert_allclose(script.asked[1], flat(100.4), atol=1e-7)


def test_what_looks_won_behind_a_blinding_is_confirmed_unblinded() -> None:
    sent: list[tuple[int, Asked]] = []
    script = Script([1, 0])
    tried = Attempt(
        script,
        BRIGHT,
        target(),
        LINF,
        Habits(blind=Blinding(1)),
        lambda number, asked: sent.append((number, asked)),
    )
    assert tried.look(flat(127)).argmax() == 0
    assert [number for number, _ in sent] == [1, 2]
    assert not np.array_equal(script.asked[0], flat(127))
    np.testing.assert_array_equal(script.asked[1], flat(127))


def test_blinding_moves_brightens_and_roughens() -> None:
    rng = np.random.default_rng(1)
    image = rng.uniform(0.2, 0.8, (3, 32, 32)).astype(np.float32)
    only_shift = Blinding(1, brightness=0, noise=0)
    moved = [only_shift(image) for _ in range(30)]
    assert len({one.tobytes() for one in moved}) > 10
    assert all(np.isin(one, image).all() for one in moved)
    gains = [Blinding(seed, shift=0, noise=0)(image) / image for seed in range(30)]
    assert all(np.ptp(gain) < 1e-5 for gain in gains)
    assert 0.9 <= min(gain.mean() for gain in gains) < 0.95
    assert 1.05 < max(gain.mean() for gain in gains) <= 1.1
    grain = Blinding(1, shift=0, brightness=0)(image) - image
    assert grain.std() == pytest.approx(2 / 255, rel=0.1)
    assert Blinding(2)(image).dtype == np.float32
    assert np.array_equal(Blinding(3)(image), Blinding(3)(image))
