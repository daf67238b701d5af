"""Everything fuzzing has found, again, and a short run of the fuzzing itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.fuzz import second
from loadtests.fuzz.reading import check_request, check_response, check_streamed
from loadtests.fuzz.targets import TARGETS, fuzz
from proxy.errors import ProxyError
from proxy.pb import open_inference_pb2 as pb

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
CHECKS = {"request": check_request, "response": check_response, "stream": check_streamed}


@pytest.mark.parametrize("file", CORPUS, ids=[file.stem for file in CORPUS])
def test_corpus(file: Path) -> None:
    """The name says what the file is and what becomes of it; a check raises on any difference."""
    kind, outcome, _ = file.stem.split("-", 2)
    check = CHECKS[kind]
    if outcome == "accepted":
        check(file.read_bytes())
    else:
        with pytest.raises(ProxyError):
            check(file.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run(target: str) -> None:
    tally = fuzz(target, seed=8, cases=2000)
    assert tally.examples == []
    assert tally.accepted
    assert tally.cases >= 2000
    assert tally.accepted + tally.refused.total() == tally.cases


def test_other_readers_read_the_same(tmp_path: Path) -> None:
    """Accepted files of the corpus, by protobuf in pure Python and in C++."""
    accepted = [f for f in CORPUS if f.stem.startswith("request-accepted-")]
    # Pure Python takes padded tags for unknown fields; C++ refuses lengths of six bytes.
    for reader, apart in (
        (second.in_python, "tag-padded-within"),
        (lambda m: second.in_cpp(m, tmp_path), "length-of-6-bytes-within"),
    ):
        messages = [file.read_bytes() for file in accepted if not file.stem.endswith(apart)]
        ours = [second.described(pb.ModelInferRequest.FromString(data)) for data in messages]
        assert reader(messages) == ours
