"""A folder of files that is never over its size: the oldest go, a greedy principal's own first.

Several processes may write to it: each looks at the folder anew, one at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import ConfigError

MOST_FILES = 10_000
TAG_DIGITS = 16
_NAME = re.compile(r"(\d{13})-([0-9a-f]{16})-[0-9a-f]{16}\.capture")
_HALF = re.compile(r"\.\d{13}-[0-9a-f]{16}-[0-9a-f]{16}\.capture")
_LOCK = ".lock"
_FORGOTTEN_S = 3600.0
"""Age at which a file that was begun and never finished goes."""


class TooLargeError(ValueError):
    """A file is more than its principal may have."""


@dataclass(frozen=True, slots=True)
class _Kept:
    time_ms: int
    name: str
    tag: str
    size: int


class Spool:
    """Adds files and removes old ones; other files in the folder are left alone.

    Args:
        folder: made if it is not there.
        max_bytes: of all files.
        keep_s: how long a file stays.
        share: of files and bytes that one tag may have.
        most_files: of all tags together.

    Raises:
        ConfigError: the folder cannot be made, or others have access to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        keep_s: float,
        share: float,
        most_files: int = MOST_FILES,
    ) -> None:
        self._folder, self._keep_s = folder, keep_s
        self._max_bytes, self._most_files = max_bytes, most_files
        self._own_bytes = int(share * max_bytes)
        self._own_files = max(1, int(share * most_files))
        self.files = 0
        """In the folder when it was last looked at."""
        self.bytes = 0
        """Of these."""
        self._last_ms = self._same_ms = 0
        _make(folder)

    def put(self, tag: str, content: bytes) -> None:
        """Add a file; those that have to go for it go first.

        Args:
            tag: whose it is, `TAG_DIGITS` hexadecimal digits.
            content: all of it.

        Raises:
            TooLargeError: it is more than a tag may have.
            OSError: it could not be written; nothing is left of it.
        """
        if len(content) > self._own_bytes:
            raise TooLargeError
        with self._locked():
            now_ms = time.time_ns() // 1_000_000
            kept = self._swept(now_ms)
            self._make_room(kept, tag, len(content))
            self._write(f"{now_ms:013d}-{tag}-{self._token(now_ms)}.capture", content)
            self.files += 1
            self.bytes += len(content)

    def sweep(self) -> None:
        """Remove what is too old."""
        with self._locked():
            self._swept(time.time_ns() // 1_000_000)

    def _token(self, now_ms: int) -> str:
        """Random, but of one tag's files of one millisecond the later sorts behind the earlier."""
        self._same_ms = self._same_ms + 1 if now_ms == self._last_ms else 0
        self._last_ms = now_ms
        return f"{self._same_ms:04x}{secrets.token_hex(6)}"

    def _make_room(self, kept: list[_Kept], tag: str, size: int) -> None:
        own = [each for each in kept if each.tag == tag]
        for among, files, most in (
            (own, self._own_files, self._own_bytes),
            (kept, self._most_files, self._max_bytes),
        ):
            left, total = len(among), sum(each.size for each in among)
            for each in list(among):
                if left < files and total + size <= most:
                    break
                self._remove(each)
                left, total = left - 1, total - each.size
                if among is own:
                    kept.remove(each)

    def _swept(self, now_ms: int) -> list[_Kept]:
        """What is in the folder, oldest first, once the too old and the unfinished are gone."""
        found: list[_Kept] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                with contextlib.suppress(FileNotFoundError):
                    if match and entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        found.append(_Kept(int(match[1]), entry.name, match[2], size))
                    elif _HALF.fullmatch(entry.name):
                        self._forget(entry, now_ms)
        self.files, self.bytes = len(found), sum(each.size for each in found)
        # One of the future was written before the clock was set back.
        old = [each for each in found if abs(now_ms - each.time_ms) > 1000 * self._keep_s]
        for each in old:
            self._remove(each)
        gone = set(old)
        return sorted((e for e in found if e not in gone), key=lambda e: (e.time_ms, e.name))

    def _forget(self, entry: os.DirEntry[str], now_ms: int) -> None:
        if abs(now_ms / 1000 - entry.stat(follow_symlinks=False).st_mtime) > _FORGOTTEN_S:
            os.unlink(entry.path)

    def _remove(self, each: _Kept) -> None:
        with contextlib.suppress(FileNotFoundError):  # an uploader may have moved it
            (self._folder / each.name).unlink()
        self.files -= 1
        self.bytes -= each.size

    def _write(self, name: str, content: bytes) -> None:
        half = self._folder / f".{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(half, flags, 0o600), "wb") as stream:
                stream.write(content)
            half.rename(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                half.unlink()
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._folder / _LOCK, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise ConfigError(f"capture.folder: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"capture.folder: others have access to {folder}: chmod 700 it, or name a folder in "
            "it that is not there yet"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"capture.folder: {folder} cannot be written to")
