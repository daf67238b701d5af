from __future__ import annotations

from pathlib import Path

import pytest

from proxy.files import write_whole


def test_the_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for content in (b"old", b"", b"new"):
        write_whole(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_replaced_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").is_dir()
