"""The configuration file as what the control API changes: read, judged, written, taken back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from proxy import configfile
from proxy.config import Config
from proxy.control.errors import ImpossibleError, InvalidAskError, TooLargeError
from proxy.errors import ConfigError
from proxy.files import write_whole

MAX_BYTES = 1024 * 1024
"""Largest policy accepted: hundreds of models, commented."""

PREVIOUS = ".previous"
"""What is put behind the file's name for the text before the last change."""

_MOUNTED = "..data"
"""The link by which Kubernetes swaps all files of a ConfigMap at once."""


class Texts(NamedTuple):
    """What lies on disk: the file, and the text before it if there is one."""

    current: str
    previous: str | None


class PolicyFile:
    """A configuration file.

    Args:
        path: the file; a link is followed, so that what it points to is changed.
        overrides: settings of the command line, which win over the file.
    """

    def __init__(self, path: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._overrides = dict(overrides or {})
        self.loaded = ""
        """Digest of the text that `load` read last."""

    def read(self) -> Texts:
        """The texts on disk; the current one may be any text.

        Raises:
            ImpossibleError: the file cannot be read.
        """
        try:
            current = configfile.read(self.path)
        except ConfigError as error:
            raise ImpossibleError(str(error)) from error
        try:
            previous: str | None = configfile.read(self._previous)
        except ConfigError:
            previous = None
        return Texts(current, previous)

    def digest(self) -> str:
        """The digest of what lies on disk; empty where that cannot be read."""
        try:
            return digest_of(configfile.read(self.path))
        except ConfigError:
            return ""

    def load(self) -> Config:
        """The configuration of the file, to be put in force in a process that runs.

        Raises:
            ConfigError: it cannot be used, or is empty, which is what a full disk or a writer that
                was stopped leaves: it would take every defence away.
        """
        text = configfile.read(self.path)
        if not text.strip():
            raise ConfigError(f"{self.path}: is empty; to serve without models, say `models: {{}}`")
        config = self.parse(text)
        self.loaded = digest_of(text)
        return config

    def parse(self, text: str) -> Config:
        """The configuration that the process would have if this were the file's text.

        Raises:
            ConfigError: one line for each thing that is wrong, with its place.
        """
        return configfile.parse(self.path, text).model_copy(update=self._overrides)

    def writable(self) -> bool:
        """Whether the file can be changed here."""
        return not self._why_not()

    def write(self, texts: Texts) -> None:
        """Put texts on disk, the previous one first, with the mode and owner of the file.

        Raises:
            ImpossibleError: it cannot be written; the file is as it was.
        """
        if why := self._why_not():
            raise ImpossibleError(why)
        try:
            like = self._place.stat()
            if texts.previous is None:
                self._previous.unlink(missing_ok=True)
            else:
                write_whole(self._previous, texts.previous.encode(), like=like)
            write_whole(self._place, texts.current.encode(), like=like)
        except OSError as error:
            raise ImpossibleError(
                f"{self.path} cannot be changed here ({error.strerror}): change it at its source"
            ) from error

    @property
    def _place(self) -> Path:
        """The file itself, whatever links lead there."""
        return self.path.resolve()

    @property
    def _previous(self) -> Path:
        return self._place.with_name(self._place.name + PREVIOUS)

    def _why_not(self) -> str:
        """Why the file cannot be changed; empty if it seems that it can."""
        if (self.path.absolute().parent / _MOUNTED).is_symlink():
            return (
                f"{self.path} is mounted from a ConfigMap or a Secret: change that, and the file "
                "follows within a minute or so"
            )
        folder = self._place.parent
        if not os.access(self._place, os.W_OK) or not os.access(folder, os.W_OK):
            return (
                f"{self.path} is read-only, or its folder is: change it at its source, or let "
                "this process write there"
            )
        return ""


def expect_text(text: str) -> None:
    """Raise unless this can be the text of a policy file.

    Raises:
        InvalidAskError: it is no text that a file can hold.
        TooLargeError: it is longer than any policy.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidAskError("the policy is not valid Unicode") from error
    if size > MAX_BYTES:
        raise TooLargeError(f"the policy is longer than {MAX_BYTES:,} bytes")


def digest_of(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
