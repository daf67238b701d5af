"""What a series of queries is told in the end: noted for the next one, or held to where it began.

An attacker who is answered from purified copies still follows the purified model, and some searches
succeed against that one too. The class of a decoy is therefore held to the one the series began
with: the search goes on and never arrives.
"""

from __future__ import annotations

from proxy import policy
from proxy.answers import read_output, shows_output, swap_classes
from proxy.evidence import Findings
from proxy.flow import Action
from proxy.inspection import Inspection
from proxy.upstream import Answer


def note(inspection: Inspection, findings: Findings, answer: Answer) -> None:
    """Have the history know the model's answer to a request that was not changed."""
    trace, spec = findings.trace, findings.image.spec
    if trace is None or trace.is_answered or not shows_output(inspection.request, spec):
        return
    output = read_output(answer.data, spec, len(findings.glance.x))
    if output is not None:
        trace.answered(output)


def held(inspection: Inspection, findings: Findings, answer: Answer) -> Answer:
    """The answer to purified samples, with the class each one's series began with on top.

    Only where that class was told to the same principal before this request: an answer must not
    follow what others asked. The two scores change places, so that they are those of an ordinary
    answer. An answer that does not show plain class scores stays as it is: purified.
    """
    trace, spec = findings.trace, findings.image.spec
    if inspection.flow.action is not Action.DECOY or trace is None:
        return answer
    if not shows_output(inspection.request, spec):
        return answer
    output = read_output(answer.data, spec, len(findings.glance.x))
    if output is None:
        return answer
    swaps = {}
    for i in policy.targets(findings.samples, Action.DECOY):
        origin, top = trace.origins[i], int(output[i].argmax())
        if 0 <= origin < output.shape[1] and origin != top:
            swaps[i] = (origin, top)
    if not swaps:
        return answer
    return answer._replace(data=swap_classes(answer.data, spec, len(output), swaps))
