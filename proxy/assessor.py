"""From evidence to what is done with a request, failures included: the enforcing half."""

from __future__ import annotations

from proxy import policy
from proxy.device import Device
from proxy.drift.leniency import spared
from proxy.errors import Blocked, DetectorFailed, Overloaded
from proxy.evidence import Findings, Gatherer
from proxy.flow import Action, SampleVerdict, Verdict
from proxy.inspection import Inspection
from proxy.questions import Ask

_NO_VERDICT = SampleVerdict(Verdict.FAILED, float("nan"), float("nan"), {})


class Assessor:
    """Reaches verdicts and acts on them, as the model's configuration says."""

    def __init__(self, gatherer: Gatherer, device: Device) -> None:
        self._gatherer = gatherer
        self._device = device

    async def assess(self, inspection: Inspection, answer: Ask | None) -> Findings | None:
        """Verdicts on a request, also noted on its flow; None when it is to pass without one.

        Args:
            answer: as for `Gatherer.gather`.

        Raises:
            DetectorFailed, Overloaded: no verdict, and `on_failure` is closed.
            DeadlineExceeded: the client's deadline leaves no time for one.
            InvalidTensor: the tensor is not one the model's configuration allows.
            ProxyError: the client's own request failed upstream.
        """
        try:
            findings = await self._gatherer.gather(inspection, answer)
        except (DetectorFailed, Overloaded) as failure:
            _fail(inspection, failure)
            return None
        if findings is not None:
            inspection.flow.samples = findings.samples
            if reason := policy.failure(findings.samples):
                # If this passes, the verdicts on the other samples still count: one sample that
                # cannot be judged must not carry the rest of its batch through.
                _fail(inspection, DetectorFailed(reason))
        return findings

    async def act(self, inspection: Inspection, findings: Findings | None) -> bytes | None:
        """Decide and act: the message to send instead, or None to pass it as it is.

        Raises:
            Blocked: the policy refuses the request.
            DetectorFailed, Overloaded: it was not purified in time, and `on_failure` is closed, or
                a series of queries was to be answered by a decoy.
        """
        flow = inspection.flow
        flow.action = _decided(inspection, findings)
        if flow.action is Action.BLOCK:
            raise Blocked("the request was refused")
        if flow.action in (Action.PURIFY, Action.DECOY):
            if findings is None:
                # A search must not learn the model's own answer by making its judgement fail.
                raise Overloaded("nothing to purify for a principal in quarantine")
            return await self._purified(inspection, findings)
        return None

    async def _purified(self, inspection: Inspection, findings: Findings) -> bytes | None:
        """The request with the action's targets purified; None when it is to pass as it is."""
        image = findings.image
        samples = policy.targets(findings.samples, inspection.flow.action)
        try:
            change = await self._device.purify(inspection, image, findings.glance, samples)
        except (DetectorFailed, Overloaded) as failure:
            if inspection.flow.action is Action.DECOY:
                note_failure(inspection, failure)
                raise
            _fail(inspection, failure)
            inspection.flow.action = Action.FLAG
            return None
        return inspection.request.replace({image.index: change})


def _decided(inspection: Inspection, findings: Findings | None) -> Action:
    """What to do; less than the policy says where the traffic as a whole has changed."""
    samples = () if findings is None else findings.samples
    model, in_sequence = inspection.model, inspection.must_go_on
    quarantined, population = inspection.flow.quarantined, inspection.defence.population
    action = policy.decide(samples, model, in_sequence=in_sequence, quarantined=quarantined)
    # A principal in quarantine is not the public that has changed.
    if findings is None or population is None or population.response == "none" or quarantined:
        return action
    wider = findings.image.scorer.wider
    milder = policy.decide(
        samples,
        model,
        in_sequence=in_sequence,
        spared=spared(samples, population.response, wider),
    )
    if milder is not action:
        population.withheld(action)
    return milder


def note_failure(inspection: Inspection, failure: DetectorFailed | Overloaded) -> str:
    """Count that no verdict was reached, and note it on the flow; returns the reason."""
    reason = failure.reason if isinstance(failure, DetectorFailed) else "overloaded"
    inspection.defence.metrics.detector_failure(reason)
    inspection.flow.failure = reason
    inspection.flow.samples = inspection.flow.samples or (_NO_VERDICT,)
    return reason


def _fail(inspection: Inspection, failure: DetectorFailed | Overloaded) -> None:
    """Note the failure, and let `on_failure` decide whether the request passes."""
    reason = note_failure(inspection, failure)
    if inspection.model.on_failure == "closed":
        raise failure
    inspection.defence.metrics.fail_open(reason)
