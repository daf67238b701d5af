"""What is written in place of a message against what protobuf reads in it."""

from __future__ import annotations

import random
from typing import Any

from loadtests.fuzz import reading
from loadtests.fuzz.reading import canonical, same, whole
from loadtests.fuzz.values import SIZES, TYPED, elements, framed, payload
from proxy.errors import InvalidTensor
from proxy.pb import open_inference_pb2 as pb
from proxy.references import can_move, places
from proxy.validation import validate
from proxy.wire import Changes, InferRequest, InferResponse, Tensor, build_infer_request

_SHM = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


def check_replaced(rng: random.Random, request: InferRequest) -> None:
    """Replace some inputs and compare with the same edit by protobuf.

    Args:
        request: one that was accepted.
    """
    data = bytes(request.data)
    same("no change", request.replace({}), data)
    tensors = [t for t in request.tensors if _is_editable(t)]
    if not tensors:
        return
    chosen = rng.sample(tensors, rng.randint(1, len(tensors)))
    changes: dict[int, Any] = {}
    wanted: dict[int, bytes] = {}
    for tensor in chosen:
        changes[tensor.index], wanted[tensor.index] = _change(rng, tensor)
    full = whole(pb.ModelInferRequest, data)
    inline = any(tensor.shared_memory is not None for tensor in chosen)
    if inline and any(t.contents is not None and t.datatype not in SIZES for t in request.tensors):
        return
    written = request.replace(changes)
    _edit(full, wanted, inline)
    same("edited", canonical(pb.ModelInferRequest.FromString(written)), canonical(full))
    again = InferRequest.parse(written)
    validate(again, non_finite="pass")
    for tensor in again.tensors:
        if tensor.index in wanted:
            same("new values", bytes(tensor.payload()), wanted[tensor.index])


def _is_editable(tensor: Tensor) -> bool:
    if tensor.shared_memory is None:
        return True
    return tensor.datatype != "BYTES" and tensor.shared_memory.byte_size < 1 << 16


def _change(rng: random.Random, tensor: Tensor) -> tuple[Any, bytes]:
    """A change and the values it is to lead to."""
    count = 1
    for size in tensor.shape:
        count *= size
    if tensor.datatype == "BYTES":
        new = framed(elements(rng, count))
        return new, new
    new = payload(rng, tensor.datatype, count, 0.0)
    if tensor.shared_memory is not None or rng.random() < 0.5 or not new:
        return (memoryview(new) if rng.random() < 0.5 else new), new
    size = SIZES[tensor.datatype]
    start = rng.randrange(count) * size
    end = min(len(new), start + size * rng.randint(1, 3))
    old = bytes(tensor.payload())
    patches = [(start, new[start:end])]
    if end < len(new) and rng.random() < 0.5:
        patches.append((end, new[end : end + size]))
        rng.shuffle(patches)
        return patches, old[:start] + new[start : end + size] + old[end + size :]
    return patches, old[:start] + new[start:end] + old[end:]


def _edit(full: pb.ModelInferRequest, wanted: dict[int, bytes], inline: bool) -> None:
    """The same edit by protobuf's own means."""
    old = list(reading.expected_payloads(full))
    typed = any(item.HasField("contents") for item in full.inputs) and not inline
    raws: list[bytes] = []
    for index, item in enumerate(full.inputs):
        new = wanted.get(index)
        if "shared_memory_region" in item.parameters:
            if new is None:
                continue
            for key in _SHM:
                item.parameters.pop(key, None)
        if typed:
            if new is not None:
                reading.put_typed(item, new)
            continue
        item.ClearField("contents")
        value = old[index] if new is None else new
        assert value is not None
        raws.append(value)
    if not typed:
        full.ClearField("raw_input_contents")
        full.raw_input_contents.extend(raws)


def check_moved(rng: random.Random, request: InferRequest) -> bool:
    """Put tensors in shared memory as the way to Triton does; False where none can be.

    What protobuf reads in the new message must be the old one but for where the values are.
    """
    if not can_move(request.common):
        return False
    sizes = [piece.end - piece.start for piece in request.pieces]
    found = places(request.common, sizes, "breakwater-0", least_bytes=rng.choice((0, 1, 8)))
    if found is None:
        return False
    start = rng.choice((0, 64, 2**31, 2**34))
    sent = pb.ModelInferRequest.FromString(found.message(start, request.pieces, request.request_id))
    full = whole(pb.ModelInferRequest, bytes(request.data))
    stay = [bytes(request.pieces[index].view) for index in found.inline]
    same("entries that stay", list(sent.raw_input_contents), stay)
    for index, offset in found.moved:
        parameters = sent.inputs[index].parameters
        same("region", parameters[_SHM[0]].string_param, "breakwater-0")
        same("size", parameters[_SHM[1]].int64_param, sizes[index])
        same("offset", parameters[_SHM[2]].int64_param, start + offset)
        for message in (sent, full):
            for key in _SHM:
                message.inputs[index].parameters.pop(key, None)
    sent.ClearField("raw_input_contents")
    full.ClearField("raw_input_contents")
    same("moved", canonical(sent), canonical(full))
    return True


def check_output_replaced(rng: random.Random, response: InferResponse) -> bool:
    """Replace an output and compare; False where there is none with values that can be read."""
    for tensor in response.tensors:
        try:
            old = bytes(tensor.payload())
            kind = tensor.kind()
        except InvalidTensor:
            continue
        if tensor.piece is None and (kind.name not in TYPED or kind.name == "BOOL"):
            continue
        if not kind.size or len(old) % kind.size:
            continue
        new = payload(rng, kind.name, len(old) // kind.size, 0.2)
        changes: Changes = {tensor.index: new}
        full = whole(pb.ModelInferResponse, bytes(response.data))
        written = pb.ModelInferResponse.FromString(response.replace(changes))
        if tensor.piece is not None:
            full.raw_output_contents[tensor.index] = new
        else:
            reading.put_typed(full.outputs[tensor.index], new)
        del full.raw_output_contents[len(full.outputs) :]
        del written.raw_output_contents[len(full.outputs) :]
        same("edited answer", canonical(written), canonical(full))
        return True
    return False


def check_built(rng: random.Random, request: InferRequest) -> bool:
    """Ask the proxy's own question about a request's tensors and read it with protobuf."""
    tensors = [t for t in request.tensors if t.shared_memory is None]
    if not tensors:
        return False
    parts = []
    for tensor in tensors:
        raw = bytes(tensor.payload())
        cut = rng.randint(0, len(raw))
        data = raw if rng.random() < 0.5 else (raw[:cut], memoryview(raw)[cut:])
        parts.append((tensor.name, tensor.datatype, tensor.shape, data))
    parameters = {"a": True, "b": -(2**63), "c": "text", "d": 1.5}
    built = build_infer_request("m", "1", parts, ["o"], request_id="q", parameters=parameters)
    full = pb.ModelInferRequest.FromString(built)
    same("built inputs", len(full.inputs), len(tensors))
    for item, tensor, raw in zip(full.inputs, tensors, full.raw_input_contents, strict=True):
        same("built name", (item.name, item.datatype), (tensor.name, tensor.datatype))
        same("built shape", tuple(item.shape), tensor.shape)
        same("built values", raw, bytes(tensor.payload()))
    same("built parameters", len(full.parameters), len(parameters))
    return True
