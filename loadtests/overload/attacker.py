"""One attack, in a process of its own: its work must not slow down the clients that are timed."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import threading

from loadtests.overload import callers, flood, wreckers
from loadtests.overload.tally import Attack, Tally, Target

ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        *(flood.flood, callers.crowd, callers.cancel, callers.large, callers.streams),
        *(callers.churn, wreckers.too_many, wreckers.slow_writers, wreckers.fat_writers),
        *(wreckers.slow_readers, wreckers.deaf_readers, wreckers.pings, wreckers.settings),
        *(wreckers.empty, wreckers.continuations, wreckers.headers, wreckers.resets),
    )
}


def main() -> None:
    """Attack, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("address")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = Target(options.address, options.seconds, options.rate)
    tally = Tally()
    # A thread, and no farewell: a client that gave up thousands of calls may not come to an end.
    threading.Timer(target.seconds, _leave, (tally,)).start()
    asyncio.run(ATTACKS[options.attack](target, tally))
    raise RuntimeError("an attack ended before its time")


def _leave(tally: Tally) -> None:
    print(tally.told(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
