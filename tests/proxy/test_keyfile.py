"""Secrets in files: what is one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.keyfile import LEAST, read_key


@pytest.mark.parametrize("around", ["{}", "{}\n", "  {}\r\n\n"])
def test_white_space_around_a_secret_is_not_part_of_it(tmp_path: Path, around: str) -> None:
    file = tmp_path / "key"
    file.write_text(around.format("k" * LEAST))
    assert read_key("history", file) == b"k" * LEAST


def test_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "key"
    secret = bytes(range(128, 128 + LEAST))
    file.write_bytes(secret)
    assert read_key("history", file) == secret


@pytest.mark.parametrize("content", [b"", b"k" * (LEAST - 1), b"k" * (LEAST - 1) + b"\n"])
def test_what_could_be_guessed_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"models\.m\.secrecy\.key_file: .* at least 16 are"):
        read_key("models.m.secrecy", file)


def test_the_error_does_not_show_the_secret(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2")
    with pytest.raises(ConfigError) as refused:
        read_key("history", file)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"history\.key_file: .*" if name == "." else "absent"):
        read_key("history", tmp_path / name)
