"""Cases guided by coverage: atheris changes messages and keeps those that reach something new.

It ends its process, so that it runs in one of its own and leaves its counts in a file.
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.harness import CHECKOUT

if TYPE_CHECKING:
    from loadtests.fuzz.tally import Tally

CORPUS = CHECKOUT / "tests" / "fuzz" / "corpus"
_LONGEST = 4096
_EVERY = 500
"""Cases between two writings of the counts."""


def fuzz(seed: int, cases: int) -> dict[str, Tally]:
    """Run so many cases; nothing where atheris is not installed."""
    from loadtests.fuzz.tally import Tally  # not above, since it imports what is instrumented

    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: no guided cases", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        command = [sys.executable, "-m", "loadtests.fuzz.guided", str(counts), str(cases)]
        command += [f"-seed={seed}", f"-max_len={_LONGEST}", "-print_final_stats=0", "-verbosity=0"]
        subprocess.run([*command, str(corpus), str(CORPUS)], cwd=CHECKOUT, check=False)
        told = json.loads(counts.read_text())
    told["refused"], told["found"] = Counter(told["refused"]), Counter(told["found"])
    told["examples"] = [tuple(example) for example in told["examples"]]
    return {"guided": Tally(**told)}


def main() -> None:
    """One process of it: a file for the counts, how many cases, and libFuzzer's own arguments."""
    import atheris

    with atheris.instrument_imports(include=["proxy"]):
        from loadtests.fuzz import editing, reading
        from loadtests.fuzz.grammar import Grammar, damaged
        from loadtests.fuzz.tally import Tally, measured

    counts, cases = Path(sys.argv[1]), int(sys.argv[2])
    tally, rng = Tally(), random.Random(sys.argv[3])

    def one(data: bytes) -> None:
        with measured(tally):
            request = tally.attempt(data, lambda: reading.check_request(data))
            if request is not None:
                tally.attempt(data, lambda: editing.check_replaced(rng, request))
        if tally.cases % _EVERY < 2 or tally.found:
            counts.write_text(json.dumps(vars(tally)))

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        own = random.Random(seed)
        if own.random() < 0.1:
            return Grammar(own).request()[:longest]
        if own.random() < 0.4:
            return damaged(own, data)[:longest]
        return bytes(atheris.Mutate(data, longest))

    arguments = [sys.argv[0], f"-runs={cases // 2}", *sys.argv[3:]]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
