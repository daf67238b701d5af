"""Sketches: counts that merge, that are bounded, and that survive JSON."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest

from detectors.drift_reference import CLASSES, VERDICT, Reference, Scale, Signal, nominal, ordered
from detectors.drift_sketch import BLOCKS, Sketch, SketchError, block_of

REFERENCE = Reference(
    {
        "score/a": ordered([np.arange(320.0)]),
        CLASSES: nominal([np.arange(10.0)]),
        VERDICT: Signal(Scale.RATE, np.zeros(1), np.array([[99.0, 1.0]])),
    }
)


def filled(seed: int) -> Sketch:
    rng = np.random.default_rng(seed)
    sketch = Sketch(REFERENCE)
    values = {
        "score/a": rng.uniform(0, 320, 500),
        CLASSES: rng.integers(0, 12, 500),
        VERDICT: rng.random(500) < 0.01,
    }
    sketch.add(rng.integers(0, BLOCKS, 500), values)
    return sketch


def test_each_sample_is_counted_once_where_it_belongs() -> None:
    sketch = Sketch(REFERENCE)
    sketch.add([3, 3, 7], {"score/a": [0.0, 1e9, np.nan], VERDICT: [False, True, True]})
    assert sketch.counts["score/a"][3, [0, -1]].tolist() == [1, 1]
    assert sketch.counts["score/a"].sum() == 2
    assert sketch.counts[VERDICT][[3, 7]].tolist() == [[1, 1], [0, 1]]
    assert sketch.counts[CLASSES].sum() == 0
    assert sketch.total == 3


def test_one_block_may_be_given_for_all_and_unknown_signals_are_left_out() -> None:
    sketch = Sketch(REFERENCE)
    sketch.add(5, {"score/a": [1.0, 2.0], "score/unknown": [1.0, 2.0, 3.0]})
    assert sketch.counts["score/a"][5].sum() == 2
    assert sketch.total == 2


def test_merged_sketches_count_what_one_would_have() -> None:
    first, second, whole = filled(1), filled(2), filled(1)
    first.merge(second)
    rng = np.random.default_rng(2)
    values = {"score/a": rng.uniform(0, 320, 500), CLASSES: rng.integers(0, 12, 500)}
    values[VERDICT] = (rng.random(500) < 0.01).astype(float)
    whole.add(rng.integers(0, BLOCKS, 500), values)
    assert first.total == whole.total
    for name, counts in whole.counts.items():
        np.testing.assert_array_equal(first.counts[name], counts)


def test_merging_never_wraps_around() -> None:
    first, second = filled(1), filled(1)
    first.counts["score/a"][0, 0] = second.counts["score/a"][0, 0] = 2**32 - 2
    first.merge(second)
    assert first.counts["score/a"][0, 0] == 2**32 - 1


def test_that_stretches_were_counted_is_not_lost_in_a_merge_or_json() -> None:
    first, second = filled(1), filled(2)
    second.by_stretch = True
    first.merge(second)
    assert first.by_stretch
    assert Sketch.from_json(REFERENCE, first.to_json()).by_stretch


def test_json_brings_it_back() -> None:
    sketch = filled(1)
    again = Sketch.from_json(REFERENCE, json.loads(json.dumps(sketch.to_json())))
    assert again.total == 500
    for name, counts in sketch.counts.items():
        np.testing.assert_array_equal(again.counts[name], counts)
    again.add(0, {"score/a": [1.0]})  # and can be gone on with


def test_its_size_is_known_and_never_changes() -> None:
    sketch = filled(1)
    assert sketch.size == 4 * BLOCKS * (32 + 11 + 2) == Sketch(REFERENCE).size


def test_sketches_of_different_references_do_not_merge() -> None:
    other = Sketch(Reference({"score/a": REFERENCE.signals["score/a"]}))
    with pytest.raises(SketchError, match="different references"):
        filled(1).merge(other)
    with pytest.raises(SketchError, match="another reference"):
        Sketch.from_json(REFERENCE, other.to_json())


@pytest.mark.parametrize("blocks", [[-1], [BLOCKS], [0, 1]])
def test_blocks_that_do_not_fit_are_refused(blocks: list[int]) -> None:
    with pytest.raises(SketchError):
        Sketch(REFERENCE).add(blocks, {"score/a": [1.0]})


BOMB = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()


@pytest.mark.parametrize("text", ["", "%%%", "AAAA", BOMB, None, 5])
def test_damage_is_refused_without_unpacking_more_than_belongs_there(text: Any) -> None:
    data = filled(1).to_json()
    data["counts"]["score/a"] = text
    with pytest.raises(SketchError):
        Sketch.from_json(REFERENCE, data)


@pytest.mark.parametrize("data", [{}, {"counts": 3}, {"counts": {}, "total": 1}])
def test_what_is_no_sketch_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(SketchError):
        Sketch.from_json(REFERENCE, data)


def test_blocks_depend_on_the_key_and_the_stretch_and_nobody_can_foresee_them() -> None:
    names = [f"10.0.0.{i}" for i in range(200)]
    blocks = [block_of(name, b"one") for name in names]
    assert blocks == [block_of(name, b"one") for name in names]
    assert blocks != [block_of(name, b"two") for name in names]
    assert blocks != [block_of(name, b"one", 1) for name in names]
    assert 100 < len(set(blocks)) <= 200  # 256 blocks, 200 names: about 139 are met
    assert all(0 <= block < BLOCKS for block in blocks)


@pytest.mark.parametrize("name", ["", "\ud800", "\x00\n", "x" * 100_000])
def test_hostile_names_have_blocks_too(name: str) -> None:
    assert 0 <= block_of(name, b"k" * 200) < BLOCKS
