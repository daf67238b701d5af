"""Who gets in: tokens from files that rotate, and what is open without one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from proxy.config import is_loopback
from proxy.control.access import LEAST, MOST, Access, Token, is_own_name
from proxy.errors import ConfigError

SECRET = "correct-horse-battery"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "token", SECRET)


def write(path: Path, secret: str, mode: int = 0o600) -> Path:
    path.write_text(f"{secret}\n")
    path.chmod(mode)
    return path


def test_without_a_token_loopback_can_be_read_and_nothing_changed() -> None:
    here, there = Access(loopback=True), Access(loopback=False)
    assert here.allows(None, write=False) is None
    for refusal in (here.allows(None, write=True), there.allows(None, write=False)):
        assert refusal is not None
        assert "control.token_file" in refusal
        assert (refusal.code, refusal.http) == ("PERMISSION_DENIED", 403)
    assert here.allows(f"Bearer {SECRET}", write=True) is not None  # there is none to match
    assert not here.wants_token


@pytest.mark.parametrize("write_too", [False, True])
def test_with_a_token_everything_needs_it(file: Path, write_too: bool) -> None:
    access = Access(Token(file), loopback=True)
    assert access.wants_token
    assert access.allows(f"Bearer {SECRET}", write_too) is None
    assert access.allows(f"bearer  {SECRET} ", write_too) is None
    wrong = (
        "",
        SECRET,
        f"Basic {SECRET}",
        "Bearer",
        "Bearer ",
        f"Bearer {SECRET}x",
        "Bearer é\ud800",
    )
    for authorization in (None, *wrong, f"Bearer {SECRET[:-1]}", f"Bearer {SECRET} {SECRET}"):
        refusal = access.allows(authorization, write_too)
        assert refusal is not None
        assert (refusal.code, refusal.http) == ("UNAUTHENTICATED", 401)
        assert SECRET not in refusal


def test_a_new_token_is_in_force_at_once(file: Path) -> None:
    access = Access(Token(file))
    fresh = file.with_name("fresh")
    write(fresh, SECRET[::-1])
    fresh.replace(file)  # as Kubernetes does with a Secret
    assert access.allows(f"Bearer {SECRET}", write=True) is not None
    assert access.allows(f"Bearer {SECRET[::-1]}", write=True) is None


def test_nobody_gets_in_while_the_file_is_unusable(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(Token(file))
    file.unlink()
    for _ in range(3):
        refusal = access.allows(f"Bearer {SECRET}", write=False)
        assert refusal is not None
        assert "the log says why" in refusal
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    write(file, "short")
    assert access.allows("Bearer short", write=False) is not None
    write(file, SECRET)
    assert access.allows(f"Bearer {SECRET}", write=False) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * (LEAST - 1), "has 15 characters; at least 16"),
        (b"  \n", "has 0 characters"),
        (b"x" * (MOST + 1), "more than 4096 bytes"),
        (b"two words, and long enough", "printable ASCII"),
        (b"\xff" * 20, "printable ASCII"),
    ],
)
def test_a_token_that_is_none_is_refused_at_start(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        Token(path)


def test_a_missing_file_and_a_folder_are_refused_at_start(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=r"^control\.token_file: "):
            Token(path)


def test_a_file_that_everybody_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Token(write(tmp_path / "open", SECRET, 0o644))
    assert "chmod o-r" in caplog.text
    caplog.clear()
    Token(write(tmp_path / "kubernetes", SECRET, 0o440))
    assert caplog.text == ""
    assert os.stat(tmp_path / "kubernetes").st_mode & 0o777 == 0o440


def test_wrong_tokens_do_not_fill_the_log(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    access = Access(Token(file), clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 2.0, 61.0):
        access.allows("Bearer guess-guess-guess", write=True)
    assert [r.args for r in caplog.records] == [(1,), (3,)]
    assert "guess" not in caplog.text


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("127.0.0.1:9", True),
        ("127.9.9.9:9", True),
        ("[::1]:9", True),
        ("localhost:9", True),
        ("0.0.0.0:9", False),
        ("[::]:9", False),
        ("10.0.0.1:9", False),
        ("localhost.example:9", False),
    ],
)
def test_what_is_loopback(address: str, is_one: bool) -> None:
    assert is_loopback(address) is is_one


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        *(("127.0.0.1:9090", True), ("10.0.0.7", True), ("[::1]:9090", True), ("[::1]", True)),
        *(("localhost:9090", True), ("LOCALHOST", True), ("evil.example:9090", False)),
        *(("localhost.evil.example", False), ("", False), ("127.0.0.1.evil.example:1", False)),
    ],
)
def test_names_that_are_not_our_own(host: str, is_own: bool) -> None:
    assert is_own_name(host) is is_own
