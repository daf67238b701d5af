"""Runs the steps of the Dockerfile without a container engine, and then what they have built.

    sudo python3.11 deploy/image/prove.py

Each stage gets an overlay over this machine's root, in memory and in a mount namespace of its own:
the machine stands in for the base image and nothing on it changes. The RUN and COPY steps are the
Dockerfile's own. Then the result is mounted read-only, and the entry point runs as the Dockerfile's
user, without capabilities, in a network of its own. CPU variant; it needs Linux, root, pip's index
and about 3 GB of memory. Not shown by it: that the base image has what the steps need.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from steps import Stage, assignments, stages

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = Path(os.path.realpath(sys.executable))
_INSIDE = "--inside"
_CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
_CLONE_NEWNET = 0x40000000
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Where pip finds its index on this machine: an image's builder is told the same by its proxy."""


def main() -> int:
    """Enter a mount namespace of our own and prove the image there."""
    if _INSIDE in sys.argv:
        return prove()
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        print("prove.py mounts file systems: it needs root, and a container that lets it")
        return 2
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return subprocess.run([*enter, sys.executable, __file__, _INSIDE]).returncode


def prove() -> int:
    """Build every stage, then run the last one."""
    begun = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="breakwater-image-"))
    try:
        mount("-t", "tmpfs", "-o", "size=6g", "tmpfs", scratch)
        roots: dict[str, Path] = {}
        for number, stage in enumerate(stages()):
            root = overlay(scratch / (stage.name or str(number)))
            environment = build(stage, root, roots)
            roots[stage.name] = root
            said(f"stage {stage.name or 'final'} built", begun)
        run(stage, Root(root, environment))
        said("runs as its user, read-only", begun)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(scratch)], check=False)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def said(what: str, begun: float) -> None:
    """Say what is done."""
    print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)


def mount(*arguments: str | Path) -> None:
    """Mount a file system, as the program of this name does."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def overlay(folder: Path) -> Path:
    """This machine's root with changes that go to memory; its Python as the base image's."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir(parents=True)
    mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay", root)
    for name in ("proc", "sys", "dev"):
        mount("--rbind", f"/{name}", root / name)
    mount("-t", "tmpfs", "tmpfs", root / "tmp")
    for parent in PYTHON.parents:  # the base image's interpreter is for everybody
        (root / parent.relative_to("/")).chmod(0o755)
    command = root / "usr/local/bin/python3"
    command.unlink(missing_ok=True)
    command.write_text(f'#!/bin/sh\nexec "{PYTHON}" "$@"\n')  # a link would hide its library
    command.chmod(0o755)
    return root


def build(stage: Stage, root: Path, built: dict[str, Path]) -> dict[str, str]:
    """Take one stage's steps; the environment at its end."""
    environment = {"PATH": _PATH, "HOME": "/root"}
    arguments = {k: v for k, v in os.environ.items() if k.upper().startswith(_KEPT)}
    folder = "/"
    for step in stage.steps:
        if step.name == "WORKDIR":
            folder = step.text
            (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "ARG":
            arguments |= assignments(step, environment | arguments)
        elif step.name == "ENV":
            environment |= assignments(step, environment | arguments)
        elif step.name == "COPY":
            copy(step.words, root, folder, built)
        elif step.name == "RUN":
            shell = [_CHROOT, str(root), "/bin/sh", "-c", f'cd "{folder}" && {step.text}']
            done = subprocess.run(shell, env=arguments | environment, capture_output=True)
            if done.returncode != 0:
                sys.stderr.buffer.write(done.stdout + done.stderr)
                raise SystemExit(f"failed: RUN {step.text}")
    return environment


def copy(words: Sequence[str], root: Path, folder: str, built: dict[str, Path]) -> None:
    """COPY, from the repository or from an earlier stage."""
    options = [word for word in words if word.startswith("--")]
    *sources, target = (word for word in words if not word.startswith("--"))
    start = built[options[0].removeprefix("--from=")] if options else REPOSITORY
    at = root / folder.lstrip("/") / target if target[0] != "/" else root / target.lstrip("/")
    for source in (start / each.lstrip("/") for each in sources):
        if source.is_dir():
            ignored = None if options else shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, at, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, at)


class Root:
    """The finished image: read-only, with its own user, environment and network."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self._root = root
        self._environment = environment
        mount("-o", "remount,ro", root)
        loopback()
        self.user = "1000:1000"

    def command(self, *words: str) -> list[str]:
        """The words as this image's user would run them."""
        uid, _, gid = self.user.partition(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        caps = ["--bounding-set=-all", "--inh-caps=-all"]
        return [_CHROOT, str(self._root), *drop, *caps, *words]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(*words), env=self._environment, capture_output=True, text=True, timeout=120
        )

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run beside us, killed in the end."""
        process = subprocess.Popen(self.command(*words), env=self._environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def loopback() -> None:
    """A network of our own, so that the image's ports are free and nothing outside is reached."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    up = struct.pack("16sH", b"lo", 0x41)  # ifreq: IFF_UP | IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        fcntl.ioctl(some, 0x8914, up + bytes(24))  # SIOCSIFFLAGS


def run(stage: Stage, image: Root) -> None:
    """What the finished image must do."""
    image.user = stage.of("USER")[0].text
    entry, arguments = stage.of("ENTRYPOINT")[0].command, stage.of("CMD")[0].command
    expect(image.call("touch", "/opt/breakwater/new").returncode != 0, "the root can be written")
    expect(image.call("touch", "/tmp/new").returncode == 0, "/tmp cannot be written")
    where = image.call("python", "-c", "import proxy, tuning; print(proxy.__file__)").stdout
    expect(where.startswith("/opt/breakwater/"), f"the package is at {where}")
    expect(image.call("python", "-m", "pip").returncode != 0, "there is pip")
    list_ = image.call(*entry, "check", "--list")  # loads torch and every detector
    expect(list_.returncode == 0, f"check --list: {list_.stderr}")
    for more in ([], ["--workers", "2"]):
        serves(stage, image, [*entry, *arguments, *more])


def serves(stage: Stage, image: Root, words: Sequence[str]) -> None:
    """Start it, probe it as the Dockerfile says, stop it as the Dockerfile says."""
    probe = stage.of("HEALTHCHECK")[0].command
    with image.started(*words) as process:
        deadline = time.monotonic() + 60
        while (health := image.call(*probe)).returncode != 0:
            expect(process.poll() is None and time.monotonic() < deadline, f"{words}: {health}")
            time.sleep(0.1)
        ready = image.call(probe[0], "health", "--service", "readiness").returncode
        expect(ready == 1, f"readiness without Triton: {ready}")
        process.send_signal(signal.Signals[stage.of("STOPSIGNAL")[0].text])
        status = process.wait(60)
        expect(status == 0, f"{words} ended with {status}")


def expect(is_so: bool, otherwise: str) -> None:
    """Fail with a line."""
    if not is_so:
        raise SystemExit(f"not proven: {otherwise}")


if __name__ == "__main__":
    sys.exit(main())
