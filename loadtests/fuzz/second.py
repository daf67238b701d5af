"""Two more readers of the same bytes: protobuf in pure Python, and in C++ (protoc).

The second runs in a process of its own, since one process has one implementation; protoc reads many
messages at once as a repeated field. What they read is compared with what Breakwater took its
decisions from, field by field.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from loadtests.fuzz.encoding import varint
from loadtests.fuzz.grammar import Grammar
from loadtests.fuzz.reading import read_request, reason
from loadtests.fuzz.tally import Tally, measured
from loadtests.harness import CHECKOUT
from proxy.errors import ProxyError
from proxy.pb import open_inference_pb2 as pb

BATCH = 2_000
_PURE = "from loadtests.fuzz.second import pure;pure()"
_MANY = "fuzz.Many"


def described(message: Message) -> str:
    """Every known field of a request, so that equal texts mean equal requests."""
    return json.dumps(_plain(message), sort_keys=True)


def _plain(message: Message) -> object:
    fields = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fields[field.name] = {key: _plain(value[key]) for key in sorted(value)}
        elif field.message_type is not None:
            many = field.label == field.LABEL_REPEATED
            fields[field.name] = [_plain(item) for item in value] if many else _plain(value)
        elif isinstance(value, (str, int, float, bool, bytes)):
            fields[field.name] = repr(value)
        else:
            fields[field.name] = repr(list(value))
    return fields


def accepted(
    rng: random.Random, tally: Tally, count: int, *, pads_tags: bool = True
) -> list[bytes]:
    """So many requests that are accepted; refusals are counted."""
    grammar, found = Grammar(rng), []
    grammar.pads_tags = pads_tags
    while len(found) < count:
        data = grammar.request()
        try:
            read_request(data, "pass")
            found.append(data)
        except ProxyError as error:
            tally.refused[reason(error)] += 1
            tally.cases += 1
    return found


def pure() -> None:
    """Read messages in hexadecimal from standard input and describe them, a line each."""
    for line in sys.stdin:
        print(described(pb.ModelInferRequest.FromString(bytes.fromhex(line))))


def in_python(messages: list[bytes]) -> list[str]:
    """What pure Python reads."""
    done = subprocess.run(
        [sys.executable, "-c", _PURE],
        input="\n".join(data.hex() for data in messages),
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def in_cpp(messages: list[bytes], folder: Path) -> list[str | None]:
    """What protoc reads; None where it refuses (lengths of more than five bytes, for one)."""
    (folder / "many.pb").write_bytes(_files().SerializeToString())
    data = b"".join([varint(1 << 3 | 2) + varint(len(each)) + each for each in messages])
    text = _protoc(folder, f"--decode={_MANY}", data)
    if text is None:
        if len(messages) == 1:
            return [None]
        half = len(messages) // 2
        return in_cpp(messages[:half], folder) + in_cpp(messages[half:], folder)
    again = _protoc(folder, f"--encode={_MANY}", _without_unknown(text.decode()).encode())
    pool = descriptor_pool.DescriptorPool()
    for file in _files().file:
        pool.Add(file)
    many = message_factory.GetMessageClass(pool.FindMessageTypeByName(_MANY))
    return [described(each) for each in many.FromString(again).one]


def _files() -> descriptor_pb2.FileDescriptorSet:
    """The protocol, and a message that holds many requests."""
    files = descriptor_pb2.FileDescriptorSet()
    own = files.file.add()
    pb.DESCRIPTOR.CopyToProto(own)
    file = files.file.add(name="many.proto", package="fuzz", dependency=[own.name], syntax="proto3")
    kind = "." + pb.ModelInferRequest.DESCRIPTOR.full_name
    field = file.message_type.add(name="Many").field.add(name="one", number=1, type_name=kind)
    field.label, field.type = field.LABEL_REPEATED, field.TYPE_MESSAGE
    return files


def _protoc(folder: Path, what: str, data: bytes) -> bytes | None:
    """Its output; None where it cannot read the data."""
    command = [sys.executable, "-m", "grpc_tools.protoc", what]
    command += [f"--descriptor_set_in={folder / 'many.pb'}", "many.proto"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode and b"Failed to parse input" not in done.stderr:
        raise RuntimeError(done.stderr.decode(errors="replace")[:500])
    return None if done.returncode else done.stdout


def _without_unknown(text: str) -> str:
    """Text format without the fields that have only a number."""
    kept, depth = [], 0
    for line in text.splitlines():
        bare = line.strip()
        if depth:
            depth += bare.endswith("{") - (bare == "}")
        elif re.match(r"\d+ \{$", bare):
            depth = 1
        elif not re.match(r"\d+: ", bare):
            kept.append(line)
    return "\n".join(kept)


def fuzz(seed: int, cases: int) -> dict[str, Tally]:
    """Compare so many accepted requests with each reader."""
    tallies = {"protobuf in Python": Tally(), "protobuf in C++": Tally()}
    rng = random.Random(f"second {seed}")
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, cases, BATCH):
            for name, tally in tallies.items():
                with measured(tally):
                    count, is_cpp = min(BATCH, cases - start), name.endswith("C++")
                    messages = accepted(rng, tally, count, pads_tags=is_cpp)
                    ours = [described(pb.ModelInferRequest.FromString(m)) for m in messages]
                    theirs: Sequence[str | None] = (
                        in_cpp(messages, Path(folder)) if is_cpp else in_python(messages)
                    )
                    _compare(tally, messages, ours, theirs)
    return tallies


def _compare(
    tally: Tally, messages: list[bytes], ours: list[str], theirs: Sequence[str | None]
) -> None:
    tally.cases += len(messages)
    for data, here, there in zip(messages, ours, theirs, strict=True):
        if there is None:  # stricter than Breakwater: nothing is computed on
            tally.refused["by this reader only"] += 1
            continue
        tally.accepted += 1
        if here != there:
            tally.note("difference", ValueError(f"{here} here, {there} there"), data)
