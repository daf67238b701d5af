"""Answers to a series of queries: held to the class it began with, or noted for the next query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from proxy import config, decoy, wire
from proxy.budget import Budget
from proxy.case import Glance
from proxy.defence import Defence
from proxy.evidence import Findings
from proxy.flow import Action, Flow, SampleVerdict, Verdict
from proxy.history.fingerprints import Fingerprinter
from proxy.history.history import History, Trace
from proxy.inspection import Image, Inspection
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Answer
from tests.images import benign, request
from tests.proxy.test_tensors import SPEC

METRICS = Metrics(CollectorRegistry())
X = torch.from_numpy(benign(3, seed=31))
LOGITS = np.array([[0, 5, 1], [4, 0, 1], [0, 1, 3]], np.float32)


def answer(logits: NDArray[np.float32]) -> Answer:
    output = pb.ModelInferResponse.InferOutputTensor(
        name=SPEC.output, datatype="FP32", shape=logits.shape
    )
    message = pb.ModelInferResponse(
        model_name=SPEC.model, outputs=[output], raw_output_contents=[logits.tobytes()]
    )
    return Answer(message.SerializeToString())


def logits_of(given: Answer) -> NDArray[np.float32]:
    response = pb.ModelInferResponse.FromString(given.data)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(-1, 3)


async def trace(first: NDArray[np.float32] | None) -> Trace:
    """What is known of the three images, asked for a second time, the first with these answers."""
    history = History(config.History(), METRICS)
    fingerprint = Fingerprinter(history.salts.steady("m"), lambda: history.salts.of("m"))
    began = await history.observe("m", "p", fingerprint(X, torch.zeros(3)), config.QueryAttacks())
    if first is not None:
        began.answered(first)
    return await history.observe("m", "p", fingerprint(X, torch.zeros(3)), config.QueryAttacks())


def inspection(action: Action, *, hides: bool = False) -> Inspection:
    message = request(SPEC.model, X.numpy())
    if hides:
        message.outputs.add(name=SPEC.output).parameters["classification"].int64_param = 2
    parsed = wire.InferRequest.parse(message.SerializeToString())
    flow = Flow("r", 0.0, None, "p", action=action)
    model = config.Model()
    defence = Defence("m", model, METRICS.model("m"), "refuse", spec=SPEC)
    return Inspection(flow, defence, model, parsed, None, Budget(1.0), 1.0)


def findings(known: Trace | None) -> Findings:
    image = Image(0, b"", (3, 3, 32, 32), SPEC, None)  # type: ignore[arg-type]
    verdicts = tuple(SampleVerdict(Verdict.PASS, 0.0, 0.0, {}) for _ in range(3))
    return Findings(image, Glance(X, {}), verdicts, known)


async def test_classes_that_changed_change_places_with_those_the_series_began_with() -> None:
    known = await trace(np.eye(3, dtype=np.float32)[[1, 2, 2]])
    given = decoy.held(inspection(Action.DECOY), findings(known), answer(LOGITS))
    expected = LOGITS.copy()
    expected[1] = [1, 0, 4]
    np.testing.assert_array_equal(logits_of(given), expected)


@pytest.mark.parametrize("action", [Action.NONE, Action.FLAG, Action.PURIFY])
async def test_other_actions_leave_the_answer_alone(action: Action) -> None:
    known = await trace(np.eye(3, dtype=np.float32)[[0, 0, 0]])
    plain = answer(LOGITS)
    assert decoy.held(inspection(action), findings(known), plain) is plain


async def test_a_series_whose_first_class_nobody_knows_has_the_purified_answer() -> None:
    plain = answer(LOGITS)
    assert decoy.held(inspection(Action.DECOY), findings(await trace(None)), plain) is plain


async def test_what_shows_no_class_scores_stays_purified() -> None:
    known = await trace(np.eye(3, dtype=np.float32)[[0, 0, 0]])
    plain = answer(LOGITS)
    hidden = inspection(Action.DECOY, hides=True)
    assert decoy.held(hidden, findings(known), plain) is plain
    unreadable = Answer(b"")
    assert decoy.held(inspection(Action.DECOY), findings(known), unreadable) is unreadable


async def test_an_answer_is_noted_once() -> None:
    known = await trace(None)
    decoy.note(inspection(Action.NONE), findings(known), answer(LOGITS))
    assert known.is_answered
    decoy.note(inspection(Action.NONE), findings(None), answer(LOGITS))


async def test_an_answer_that_hides_the_scores_is_not_noted() -> None:
    known = await trace(None)
    decoy.note(inspection(Action.NONE, hides=True), findings(known), answer(LOGITS))
    assert not known.is_answered
