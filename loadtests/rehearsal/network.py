"""A network namespace for each pod, as the container runtime makes them; else ports of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_PORTS = re.compile(r"(?<=[:=])(8000|8001|8002|8101|9090|9091|9092)\b")
_SUBNET = "10.231.77"


@dataclass(frozen=True)
class Place:
    """Where one pod is."""

    host: str
    prefix: tuple[str, ...]
    """What runs a command in it."""
    shift: int = 0
    """Added to every port, where all pods share one loopback."""

    def port(self, number: int) -> int:
        """Where a port of the manifest is."""
        return number + self.shift

    def ports_in(self, text: str) -> str:
        """A text of the manifest with the ports where they are."""
        if not self.shift:
            return text
        return _PORTS.sub(lambda found: str(self.port(int(found[0]))), text)


class Network:
    """A bridge and a namespace a pod; a context manager that removes them."""

    def __init__(self) -> None:
        self._bridge = f"bw{os.getpid() % 100000}"
        self._names: list[str] = []
        self._pods = 0
        self.has_namespaces = False

    def __enter__(self) -> Self:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{_SUBNET}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            _ip("netns", "add", f"{self._bridge}-try")
            _ip("netns", "del", f"{self._bridge}-try")
            self.has_namespaces = True
        except (OSError, subprocess.CalledProcessError):
            self._remove()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def place(self) -> Place:
        """Make room for one more pod."""
        self._pods += 1
        index = self._pods
        if not self.has_namespaces:
            return Place("127.0.0.1", (), 8000 + 2000 * index)  # the ports span 1,093
        name, near, far = (f"{self._bridge}{part}{index}" for part in ("-", "n", "f"))
        _ip("netns", "add", name)
        self._names.append(name)
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        _ip("link", "set", near, "master", self._bridge, "up")
        _ip("link", "set", far, "netns", name)
        inside = ("netns", "exec", name, "ip")
        host = f"{_SUBNET}.{index + 1}"
        _ip(*inside, "addr", "add", f"{host}/24", "dev", far)
        _ip(*inside, "link", "set", far, "up")
        _ip(*inside, "link", "set", "lo", "up")
        return Place(host, ("ip", "netns", "exec", name))

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            for name in [*self._names, f"{self._bridge}-try"]:
                _ip("netns", "del", name, check=False)
            _ip("link", "del", self._bridge, check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)
