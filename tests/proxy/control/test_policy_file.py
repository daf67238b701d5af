"""The file that is changed: whole, with its mode and owner, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from proxy.control.errors import ImpossibleError, InvalidAskError, TooLargeError
from proxy.control.policy_file import MAX_BYTES, PolicyFile, Texts, digest_of, expect_text
from proxy.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("max_in_flight: 1\r\n# ä\n")
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_text_is_the_files_to_the_byte(path: Path) -> None:
    texts = PolicyFile(path).read()
    assert texts == Texts("max_in_flight: 1\r\n# ä\n", None)
    assert digest_of(texts.current) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_both_texts_are_written_with_mode_and_owner(path: Path) -> None:
    path.chmod(0o640)
    if os.getuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    file = PolicyFile(path)
    file.write(Texts("max_in_flight: 2\n", "max_in_flight: 1\n"))
    assert file.read() == Texts("max_in_flight: 2\n", "max_in_flight: 1\n")
    assert files(path.parent) == {"policy.yaml", "policy.yaml.previous"}
    for each in path.parent.iterdir():
        found = each.stat()
        assert stat.S_IMODE(found.st_mode) == 0o640
        assert (found.st_uid, found.st_gid) == (before.st_uid, before.st_gid)
    file.write(Texts("max_in_flight: 3\n", None))
    assert files(path.parent) == {"policy.yaml"}


def test_a_link_is_followed_and_stays(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to("../policy.yaml")
    PolicyFile(link).write(Texts("max_in_flight: 2\n", "x"))
    assert link.is_symlink()
    assert path.read_text() == "max_in_flight: 2\n"
    assert files(link.parent) == {"link.yaml"}


def test_a_config_map_is_left_alone(tmp_path: Path) -> None:
    version = tmp_path / "..2026_11_23"
    version.mkdir()
    (version / "policy.yaml").write_text("{}")
    (tmp_path / "..data").symlink_to(version.name)
    path = tmp_path / "policy.yaml"
    path.symlink_to("..data/policy.yaml")
    file = PolicyFile(path)
    assert not file.writable()
    with pytest.raises(ImpossibleError, match=r"ConfigMap or a Secret: change that"):
        file.write(Texts("max_in_flight: 2\n", None))
    assert path.read_text() == "{}"
    assert files(version) == {"policy.yaml"}


def test_a_folder_that_takes_no_files_keeps_the_file(path: Path) -> None:
    (path.parent / "policy.yaml.previous").mkdir()  # even root cannot write that
    with pytest.raises(ImpossibleError, match="change it at its source"):
        PolicyFile(path).write(Texts("max_in_flight: 2\n", "x"))
    assert path.read_bytes() == "max_in_flight: 1\r\n# ä\n".encode()
    assert files(path.parent) == {"policy.yaml", "policy.yaml.previous"}


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("part", ["file", "folder"])
def test_read_only_is_said(path: Path, part: str) -> None:
    which = path if part == "file" else path.parent
    which.chmod(0o555)
    file = PolicyFile(path)
    assert not file.writable()
    with pytest.raises(ImpossibleError, match="read-only"):
        file.write(Texts("max_in_flight: 2\n", None))
    which.chmod(0o755)


def test_a_file_that_is_gone_is_said(path: Path) -> None:
    file = PolicyFile(path)
    path.unlink()
    with pytest.raises(ImpossibleError, match="cannot be read"):
        file.read()
    with pytest.raises(ImpossibleError):
        file.write(Texts("{}", None))


def test_texts_are_parsed_in_place_and_the_command_line_wins(path: Path) -> None:
    file = PolicyFile(path, {"listen": "127.0.0.1:1"})
    config = file.parse("listen: 127.0.0.1:2\naudit: {path: audit.jsonl}\n")
    assert (config.listen, config.audit.path) == ("127.0.0.1:1", path.parent / "audit.jsonl")
    with pytest.raises(ConfigError, match=r"policy.yaml:1:9: "):
        file.parse("listen: 5")


def test_the_digest_is_that_of_what_was_loaded(path: Path) -> None:
    file = PolicyFile(path, {"listen": "127.0.0.1:1"})
    assert file.loaded == ""
    assert file.load().listen == "127.0.0.1:1"
    digest = file.loaded
    assert digest == file.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text("nonsense: 1")
    with pytest.raises(ConfigError, match="nonsense"):
        file.load()
    assert file.loaded == digest != file.digest()
    path.unlink()
    assert file.digest() == ""


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_an_emptied_file_is_not_put_in_force(path: Path, text: str) -> None:
    """A full disk leaves one; it is valid YAML, and would take every defence away."""
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"is empty; .* say `models: \{\}`"):
        PolicyFile(path).load()
    path.write_text("models: {}\n")
    assert PolicyFile(path).load().models == {}


def test_what_no_file_can_hold_is_refused() -> None:
    expect_text("ä" * (MAX_BYTES // 2))
    with pytest.raises(TooLargeError, match="longer than 1,048,576 bytes"):
        expect_text("ä" * (MAX_BYTES // 2) + "#")
    with pytest.raises(InvalidAskError, match="Unicode"):
        expect_text("# \ud800")
