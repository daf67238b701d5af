"""Tampering with audit logs: each way is found, named and placed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from proxy.audit_chain import Chain, read
from proxy.audit_verify import Anchor, Report, verify
from proxy.cli import main
from proxy.errors import ConfigError

KEY = b"k" * 32
KEYS = pytest.mark.parametrize("key", [None, KEY])


def chain(count: int, key: bytes | None = KEY, run: str = "run", **entry: str) -> list[bytes]:
    """Lines of one run, with their ends."""
    link = Chain(run, key)
    found = []
    for index in range(count):
        found.append(link.link({"time": "t", "request_id": f"r{index}", **entry}, 0) + b"\n")
        link.written()
    return found


def found(tmp_path: Path, *lines: bytes, key: bytes | None = KEY, anchors: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    (tmp_path / "a").write_bytes(b"".join(lines))
    return verify([tmp_path / "a"], key, [Anchor.parse(each) for each in anchors])


def breaks(report: Report) -> list[tuple[str, str]]:
    return [(each.place.rpartition("/a:")[2], each.kind) for each in report.breaks]


def head(line: bytes) -> str:
    link = read(line.removesuffix(b"\n"))
    assert link is not None
    return f"{link.run}:{link.seq}:{link.seal}"


@KEYS
def test_what_was_written_is_intact(tmp_path: Path, key: bytes | None) -> None:
    report = found(tmp_path, *chain(20, key), key=key)
    assert not report.breaks
    assert report.lines == 20
    assert not report.torn


@KEYS
def test_an_edited_line_is_found(tmp_path: Path, key: bytes | None) -> None:
    lines = chain(9, key)
    lines[4] = lines[4].replace(b"r4", b"r5")
    assert breaks(found(tmp_path, *lines, key=key)) == [("5", "edited")]


def test_an_edited_line_that_is_sealed_anew_breaks_the_next(tmp_path: Path) -> None:
    lines = chain(9, None)
    link = Chain("run", None)
    for index in range(5):
        lines[4] = link.link({"time": "t", "request_id": f"r{index % 4}"}, 0) + b"\n"
        link.written()
    # Without a key the forger can go on: only an anchor tells.
    assert breaks(found(tmp_path, *lines, key=None))[0][1] == "edited"
    assert breaks(found(tmp_path, *lines, key=KEY))[0] == ("1", "edited")


def test_a_chain_made_without_the_key_is_none_with_it(tmp_path: Path) -> None:
    report = found(tmp_path, *chain(3, None))
    assert breaks(report) == [("1", "edited"), ("2", "edited"), ("3", "edited")]
    assert "without the key" in report.breaks[0].text


@KEYS
@pytest.mark.parametrize("first", [1, 4])
def test_removed_lines_are_found(tmp_path: Path, key: bytes | None, first: int) -> None:
    lines = chain(9, key)
    del lines[first : first + 3]
    report = found(tmp_path, *lines, key=key)
    assert breaks(report) == [(str(first + 1), "removed")]
    assert f"lines {first + 1} to {first + 3}" in report.breaks[0].text


@KEYS
def test_lines_in_another_order_are_found(tmp_path: Path, key: bytes | None) -> None:
    lines = chain(9, key)
    lines[3], lines[5] = lines[5], lines[3]
    assert breaks(found(tmp_path, *lines, key=key)) == [("4", "reordered")]


def test_inserted_lines_are_found(tmp_path: Path) -> None:
    lines = chain(9)
    assert breaks(found(tmp_path, *lines[:4], lines[1], *lines[4:])) == [("5", "inserted")]
    assert breaks(found(tmp_path, *lines[:4], b"{}\n", *lines[4:])) == [("5", "inserted")]
    assert breaks(found(tmp_path, *lines[:4], b"hello\n", *lines[4:])) == [("5", "inserted")]
    forged = chain(5, None, run="other")
    assert breaks(found(tmp_path, *lines[:4], forged[0], *lines[4:])) == [("5", "edited")]


def test_a_line_of_another_log_is_found(tmp_path: Path) -> None:
    lines, others = chain(9), chain(9, principal="somebody")
    report = found(tmp_path, *lines[:4], others[4], *lines[5:])
    assert breaks(report) == [("5", "edited"), ("6", "edited")]


@KEYS
def test_a_cut_off_end_is_told_by_an_anchor_alone(tmp_path: Path, key: bytes | None) -> None:
    lines = chain(9, key)
    assert not found(tmp_path, *lines[:6], key=key).breaks
    report = found(tmp_path, *lines[:6], key=key, anchors=(head(lines[8]),))
    assert [each.kind for each in report.breaks] == ["truncated"]
    report = found(tmp_path, key=key, anchors=(head(lines[8]),))
    assert [each.kind for each in report.breaks] == ["truncated"]
    assert not found(tmp_path, *lines, key=key, anchors=(head(lines[5]), head(lines[8]))).breaks


def test_a_log_written_anew_without_a_key_is_told_by_an_anchor(tmp_path: Path) -> None:
    anchor = head(chain(9, None)[5])
    report = found(tmp_path, *chain(9, None, principal="x"), key=None, anchors=(anchor,))
    assert breaks(report) == [("6", "edited")]


def test_half_a_line_is_told_from_tampering(tmp_path: Path) -> None:
    lines = chain(9)
    for half in (1, 10, 100, len(lines[5]) - 2):
        cut = lines[5][:half]
        report = found(tmp_path, *lines[:5], cut + b"\n", *lines[5:])
        assert not report.breaks
        assert [place.rpartition(":")[2] for place in report.torn] == ["6"]
        assert len(found(tmp_path, *lines, cut).torn) == 1  # of a crash
    # Whoever cuts a line in half and leaves the next shows it.
    report = found(tmp_path, *lines[:5], lines[5][:100] + b"\n", *lines[6:])
    assert breaks(report) == [("7", "removed")]


def test_half_a_line_of_one_worker_hides_no_line_of_another(tmp_path: Path) -> None:
    one, two = chain(5, run="one"), chain(5, run="two")
    report = found(tmp_path, *one[:2], one[2][:50], *two, *one[2:])
    assert not report.breaks
    assert len(report.torn) == 1
    assert report.lines == 10


def test_a_line_without_its_end_hides_nothing_either(tmp_path: Path) -> None:
    one, two = chain(5, run="one"), chain(5, run="two")
    report = found(tmp_path, *one[:2], one[2].rstrip(), *two, *one[3:])
    assert not report.breaks
    assert not report.torn
    assert report.lines == 10


def test_workers_lines_may_stand_in_any_order_among_each_other(tmp_path: Path) -> None:
    one, two = chain(5, run="one"), chain(5, run="two")
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    assert not found(tmp_path, *mixed).breaks
    assert breaks(found(tmp_path, *mixed[:4], *mixed[5:])) == [("6", "removed")]


def test_a_chain_goes_on_over_files_in_any_order(tmp_path: Path) -> None:
    lines = chain(9)
    files = [tmp_path / name for name in ("b", "a", "c")]
    for place, path in enumerate(files):
        path.write_bytes(b"".join(lines[3 * place : 3 * place + 3]))
    assert not verify(files, KEY).breaks
    assert not verify(files[::-1], KEY).breaks
    report = verify([files[0], files[2]], KEY)
    assert [each.kind for each in report.breaks] == ["removed"]
    late = verify(files[1:], KEY)
    assert not late.breaks  # the oldest file is gone: told, since retention does that too
    assert late.late == {"run": 4}
    files[1].write_bytes(b"".join(chain(9, principal="x")[3:6]))
    assert [each.kind for each in verify(files, KEY).breaks] == ["edited", "edited"]


def test_a_file_copied_in_is_found(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"".join(chain(3)))
    assert [each.kind for each in verify([tmp_path / "a", tmp_path / "b"], KEY).breaks] == [
        "inserted"
    ]


def test_lost_lines_are_counted(tmp_path: Path) -> None:
    assert found(tmp_path, Chain("run", KEY).link({"time": "t"}, 7) + b"\n").lost == 7


def test_ugly_files_are_bounded(tmp_path: Path) -> None:
    report = found(tmp_path, b"{}\n" * 5000, b"\0" * 3_000_000, b"\n\n")
    assert len(report.breaks) == 1000
    assert report.more > 4000 - 1


@pytest.mark.parametrize("text", ["", "run", "run:1", "run:x:" + "0" * 64, "run:1:00"])
def test_anchors_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="not RUN:SEQ:DIGEST"):
        Anchor.parse(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, key = tmp_path / "a", tmp_path / "key"
    key.write_bytes(KEY)
    lines = chain(4)
    log.write_bytes(b"".join(lines))
    assert main(["audit", "verify", str(log), "--key-file", str(key)]) == 0
    out = capsys.readouterr().out
    assert "intact: 4 lines of 1 runs hold" in out
    assert head(lines[3]) in out
    assert main(["audit", "verify", str(log)]) == 2
    assert "--key-file" in capsys.readouterr().err
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2
    log.write_bytes(b"".join(lines).replace(b"r2", b"r9"))
    assert main(["audit", "verify", str(log), "--key-file", str(key)]) == 1
    assert f"{log}:3: edited" in capsys.readouterr().out
    assert json.loads(lines[0])["seq"] == 1


@KEYS
def test_no_change_but_a_cut_at_the_end_goes_unseen(tmp_path: Path, key: bytes | None) -> None:
    """Random tampering: where nothing is told, every line that was written is still there."""
    rng = random.Random(8)
    lines = [
        line for pair in zip(chain(9, key, "a"), chain(9, key, "b"), strict=True) for line in pair
    ]
    anchors = (head(lines[-2]), head(lines[-1]))
    for _ in range(500):
        text = bytearray(b"".join(lines))
        start, size = rng.randrange(len(text)), rng.choice((1, 1, 10, 400, 2000))
        piece = bytes(text[start : start + size])
        what = rng.choice(("drop", "flip", "copy", "move"))
        if what in ("drop", "move"):
            del text[start : start + size]
        if what == "flip":
            text[start] ^= 1 << rng.randrange(8)
        if what in ("copy", "move"):
            at = rng.randrange(len(text))
            text[at:at] = piece
        (tmp_path / "a").write_bytes(text)
        report = verify([tmp_path / "a"], key, [Anchor.parse(each) for each in anchors])
        kept = set(bytes(text).splitlines(keepends=True))
        intact = sum(any(line.rstrip() in other for other in kept) for line in lines)
        assert report.breaks or intact == len(lines), (what, start, size)
