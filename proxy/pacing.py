"""When an answer may leave, so that how long it took does not tell its verdict.

A purified request takes another call to the model server, and whoever measures can tell. Rounding
the time of every answer up to a multiple of one quantum leaves a caller log2(multiples) bits; where
both ways end within the first, none (Köpf and Dürmuth, "A provably secure and efficient
countermeasure against timing attacks", CSF 2009, section 4).
"""

from __future__ import annotations

import math

_SEND_S = 0.005
"""What an answer needs to reach a client before its deadline."""


def wait_s(arrival_s: float, now_s: float, quantum_s: float, deadline_s: float | None) -> float:
    """How long to hold an answer that is ready.

    Args:
        arrival_s: when its request came.
        now_s: the time, on the same clock.
        quantum_s: over 0. Answers leave at multiples of it after the arrival.
        deadline_s: the client's; an answer leaves in time for it, whatever the verdict.

    Returns:
        Seconds, at least 0.
    """
    taken = math.ceil((now_s - arrival_s) / quantum_s)
    leaves_s = arrival_s + max(1, taken) * quantum_s
    if deadline_s is not None:
        leaves_s = min(leaves_s, deadline_s - _SEND_S)
    return max(0.0, leaves_s - now_s)
