"""`breakwater tune`: which policy to take, from recorded scores and measured costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy import configfile
from proxy.errors import ConfigError
from tuning.search import palette, shown
from tuning.search.account import Account
from tuning.search.basis import Basis, Given, read
from tuning.search.front import Choice, Threat, binding, choose
from tuning.search.latency import Paths, anchors
from tuning.search.measure import Stand, patient, score_ms
from tuning.search.optimise import Found, Limits, Search
from tuning.search.outcome import HELD, Bench, bench_of
from tuning.search.promises import message
from tuning.search.proof import Proof, compared, held_out, proved
from tuning.search.recorded import Recorded, record
from tuning.search.space import Candidate, Space, candidate_of, space_of
from tuning.search.threats import threats_of
from tuning.search.written import write_policy

MESSAGES = 128
"""Different requests that are sent in turn."""
REQUESTS, QUICK_REQUESTS = 1000, 120
"""To each sidecar that costs are predicted from."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of a policy.

    Raises:
        ConfigError: a limit is not one.
    """

    added_p99_ms: float = 5.0
    max_fpr: float = 0.01
    max_loss: float = 0.01
    threat: str = ""
    """The threat model to recommend for; empty: all attacks not made against one policy."""
    trials: int = 200
    may_block: bool = False
    compare: Path | None = None

    def __post_init__(self) -> None:
        """Check the limits."""
        if not 0 < self.max_fpr < 1:
            raise ConfigError(f"--max-fpr must be between 0 and 1, not {self.max_fpr:g}")
        if not 0 <= self.max_loss <= 1:
            raise ConfigError(f"--max-accuracy-loss must be from 0 to 1, not {self.max_loss:g}")
        if not self.added_p99_ms > 0:
            raise ConfigError(f"--budget-ms must be more than 0, not {self.added_p99_ms:g}")

    @property
    def limits(self) -> Limits:
        """As the search takes them."""
        return Limits(self.added_p99_ms, self.max_fpr, self.max_loss)


def run(
    given: Given,
    wish: Wish,
    config_file: Path,
    *,
    command: str = "breakwater tune",
    console: Console | None = None,
) -> int:
    """Search for a policy, check it, and write it.

    Args:
        config_file: where the configuration was read from.
        command: told in `tune.json`.

    Returns:
        0; 1 where no policy keeps the limits.

    Raises:
        ConfigError: something is missing, stale or too little; says what to do.
    """
    console = console or Console(stderr=True)
    account = Account(given, wish.limits, command)
    with progress_on(console) as progress:
        tuning = _Tuning.prepare(given, wish, account, progress, console)
        chosen = tuning.choose()
    if chosen is None:
        return 1
    choices, proof = chosen
    tuning.tell(choices, proof)
    policy = tuning.space.policy(choices[0].taken.candidate)
    config = configfile.load(config_file)
    file = write_policy(given.out, config_file, config, tuning.basis.whole, policy)
    console.print(f"written to {file}, with its calibration; all candidates are in {account.file}")
    return 0


@dataclass(frozen=True, slots=True)
class _Tuning:
    """A search with all it rests on."""

    given: Given
    wish: Wish
    account: Account
    progress: Progress
    console: Console
    basis: Basis
    recorded: Recorded
    threats: Sequence[Threat]
    space: Space
    bench: Bench
    old: Candidate | None

    @classmethod
    def prepare(
        cls, given: Given, wish: Wish, account: Account, progress: Progress, console: Console
    ) -> _Tuning:
        if given.evaluation is not None and not given.detectors:
            basis = read(given)
        else:
            basis = palette.make(given, wish.max_fpr, progress)
        recorded = record(basis.evaluation, seed=given.seed)
        threats = threats_of(recorded, wish.threat)
        space = space_of(basis.whole.model, basis.chains, basis.calibration, wish.max_fpr)
        if not threats[0].attacks:
            console.print("no attacks were recorded: only false alarms and costs can be weighed")
        old = _old(wish.compare, given.name, space)
        bench = bench_of(recorded, space, basis.calibration)
        account.basis(basis, recorded, threats)
        return cls(
            given, wish, account, progress, console, basis, recorded, threats, space, bench, old
        )

    @property
    def requests(self) -> int:
        return QUICK_REQUESTS if self.given.quick else REQUESTS

    def choose(self) -> tuple[list[Choice], Proof] | None:
        """What to take against each threat model, and how the first does; None: nothing fits."""
        basis = self.basis
        messages = [message(basis.spec, one) for one in basis.fresh[:MESSAGES].split(1)]
        with Stand(self.given.config, basis.whole, messages) as stand:
            paths = self._costs(stand)
            found = self._found(paths)
            made = [
                choose(found.trials, self.wish.limits, threat, may_block=self.wish.may_block)
                for threat in self.threats
            ]
            choices = [choice for choice in made if choice is not None]
            if not choices:
                self.account.write()
                self.console.print(binding(found.trials, self.wish.limits), markup=False)
                self.console.print(f"all candidates are in {self.account.file}")
                return None
            self._draw(found, choices)
            taken = choices[0].taken
            proof = proved(
                taken, self.old, basis, stand, self.space, paths, self.requests, self.progress
            )
        return choices, proof

    def tell(self, choices: Sequence[Choice], proof: Proof) -> None:
        """Print and write what was found."""
        taken, recorded = choices[0].taken, self.recorded
        for choice in choices:
            self.console.print(shown.front_table(choice, self.wish.limits))
            self.console.print(f"{choice.taken.candidate.name}\n{choice.why()}\n", markup=False)
        held = self.bench.outcome(taken.candidate, HELD)
        attacks = shown.attack_rows(held, recorded)
        promises = [*proof.promises, *held_out(taken, self.bench)]
        comparison = []
        if self.old is not None:
            comparison = compared(
                taken.candidate, self.old, self.bench, recorded, self.threats, proof.measured
            )
        self.console.print(shown.attack_table(attacks))
        if comparison:
            self.console.print(shown.comparison_table(comparison))
        self.console.print(shown.promise_table(promises))
        self.account.chosen(choices)
        self.account.checked(attacks, promises, comparison)
        self.account.write()

    def _costs(self, stand: Stand) -> Paths:
        basis, space, progress = self.basis, self.space, self.progress
        started = time.monotonic()
        each = score_ms(space, basis.whole, basis.fresh, basis.classes)
        wanted = anchors(space, each)
        task = progress.add_task("starting sidecars", total=len(wanted))
        models = {anchor.name: patient(space, anchor) for anchor in wanted}
        stand.start(models, lambda: progress.advance(task))
        for anchor in wanted:
            if anchor.flagged and not stand.only_flagged(anchor.name):
                self.console.print(f"{anchor.name}: no request of the data is", markup=False)
        task = progress.add_task("asking them in turn", total=self.requests)
        costs = stand.ask_in_turn(list(models), self.requests, lambda: progress.advance(task))
        paths = Paths(space, each, {anchor: costs[anchor.name] for anchor in wanted})
        self.account.costs(paths, self.requests, time.monotonic() - started)
        return paths

    def _found(self, paths: Paths) -> Found:
        started = time.monotonic()
        task = self.progress.add_task("searching", total=self.wish.trials)
        search = Search(
            self.space,
            self.bench,
            paths,
            self.wish.limits,
            self.threats[0].attacks,
            self.wish.trials,
            self.given.seed,
        )
        first = list(self.space.first())
        found = search.run(
            first if self.old is None else [self.old, *first],
            lambda: self.progress.advance(task),
        )
        if found.interrupted:
            self.console.print(f"interrupted: going on with {len(found.trials)} candidates")
        self.account.candidates(found, self.threats, time.monotonic() - started)
        return found

    def _draw(self, found: Found, choices: Sequence[Choice]) -> None:
        try:
            from tuning.search.picture import draw
        except ImportError:
            self.console.print("no picture: it needs matplotlib (pip install breakwater[tune])")
            return
        self.given.out.mkdir(parents=True, exist_ok=True)
        title = f"{self.given.name}: {len(found.trials)} policies"
        draw(self.given.out / "tune.png", found.trials, choices, self.wish.limits, title)


def _old(file: Path | None, name: str, space: Space) -> Candidate | None:
    if file is None:
        return None
    model = configfile.load(file).models.get(name)
    if model is None:
        raise ConfigError(f"--compare {file}: it has no model {name}")
    try:
        return candidate_of(model, space)
    except ConfigError as error:
        raise ConfigError(f"--compare {file}: {error}") from error


def progress_on(console: Console) -> Progress:
    """Bars that are gone when the work is done."""
    return Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
