from __future__ import annotations

from pathlib import Path

import torch

from detectors import DETECTORS
from detectors.residual import Residual
from tuning.evaluate.store import Row, Store, code, digest


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"x": torch.arange(3.0)}

    assert torch.equal(store.tensors("a", "key", make)["x"], torch.arange(3.0))
    store.tensors("a", "key", make)
    assert len(made) == 1
    store.tensors("a", "other key", make)
    assert len(made) == 2


def test_code_differs_between_parts_and_not_between_calls() -> None:
    assert code(Residual()) == code(Residual)
    assert code(Residual) != code(DETECTORS["margin"])


def test_what_is_damaged_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.tensors("a", "key", lambda: {"x": torch.ones(3)})
    store.rows("b", "key", lambda: [{"y": 1}])
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:7])
    assert store.tensors("a", "key", lambda: {"x": torch.zeros(3)})["x"].sum() == 0
    assert store.rows("b", "key", lambda: [{"y": 2}]) == [{"y": 2}]
    assert store.row("b", "key", dict[str, int | str | float | bool | None]) == {"y": 2}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop() -> list[Row]:
        raise KeyboardInterrupt

    try:
        Store(tmp_path).rows("a", "key", stop)
    except KeyboardInterrupt:
        assert not list(tmp_path.iterdir())


def test_digests_tell_shapes_types_and_order_apart() -> None:
    zeros = torch.zeros(4)
    told = {
        digest(zeros),
        digest(zeros.view(2, 2)),
        digest(zeros.int()),
        digest(zeros, 1),
        digest(1, zeros),
        digest(zeros, zeros),
    }
    assert len(told) == 6
    assert digest(zeros, "a") == digest(zeros.clone(), "a")
