"""What every section of the study is given."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from loadtests.harness import Report
from loadtests.query_attacks.runs import Attack, Run, run
from loadtests.query_attacks.scene import DETECTORS, Scene, Site
from loadtests.query_attacks.tally import detection, interval, moments, success
from tuning.evaluate.attempt import Target


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    runs: int = 20
    """Of each attack that does not adapt, where it is refused."""
    decoyed: int = 4
    """Of each attack that is led astray: every one takes its whole budget."""
    adaptive: int = 6
    """Of each that adapts; half as many flee."""
    blinded: int = 12
    sybils: int = 10
    replicas: int = 10
    independent: int = 3000
    """Images, by many principals and again others by one; each comes in one variation too."""
    sequences: int = 12
    """Of each kind."""
    frames: int = 24
    """Of each sequence."""
    static: int = 600
    """Frames of one static camera."""


FULL = Sizes()
QUICK = Sizes(
    runs=8,
    decoyed=1,
    adaptive=1,
    blinded=4,
    sybils=3,
    replicas=3,
    independent=300,
    sequences=1,
    frames=12,
    static=60,
)


@dataclass(frozen=True)
class Stage:
    """A running scene, how much to measure, and where rows and progress go."""

    scene: Scene
    sizes: Sizes
    report: Report
    progress: Progress

    def set_up(self) -> None:
        """Calibrate, which takes a minute or two."""
        task = self.progress.add_task("calibrate", total=None)
        started = time.monotonic()
        self.scene.calibrate()
        self.progress.update(task, total=1, completed=1)
        self.report.add(
            section="set up",
            model=self.scene.victim.name,
            detectors=", ".join(DETECTORS),
            calibrated_on=len(self.scene.victim.calibration),
            seconds=round(time.monotonic() - started),
        )

    def task(self, name: str, total: int) -> Callable[[], None]:
        """Show a bar; return what moves it by one."""
        number = self.progress.add_task(name, total=total)
        return lambda: self.progress.advance(number)

    def share(self, figure: str, flags: Sequence[bool], to_reach: str, **where: str) -> None:
        """Add a figure that is a share, with its interval."""
        value, low, high = interval(flags)
        told = f"{low:.3f} to {high:.3f}"
        self.report.figure(figure, value, to_reach, **where, of=len(flags), interval=told)

    def percent(self, figure: str, flags: Sequence[bool], to_reach: str) -> None:
        """Add a figure that is a small share, in percent, with its interval."""
        value, low, high = (100 * each for each in interval(flags))
        told = f"{low:.3f} to {high:.3f}"
        self.report.figure(figure, value, to_reach, of=len(flags), interval=told)

    def searches(self, section: str, attack: str, runs: Sequence[Run]) -> None:
        """Add the rows of runs that are refused when they are detected."""
        where = {"section": section, "attack": attack}
        self.report.add(**where, **detection(runs))
        self.report.add(**where, **success(runs))
        self.report.add(**where, detected_at=moments(runs))

    def silent(self, section: str, attack: str, runs: Sequence[Run]) -> None:
        """Add the rows of runs that are not told of anything."""
        self.report.add(section=section, attack=attack, runs=len(runs), **success(runs))

    def targets(self, first: int) -> Iterator[Target]:
        """Images to attack, from a place in the attacked ones on: each section has its own."""
        return self.scene.victim.targets(first)

    def attacked(
        self,
        spec: Attack,
        targets: Iterator[Target],
        count: int,
        site: Site,
        tick: Callable[[], None],
        *,
        undefended: bool = False,
    ) -> list[Run]:
        """Run an attack on the next `count` targets.

        Raises:
            ValueError: there are not so many left.
        """
        chosen = list(itertools.islice(targets, count))
        if len(chosen) < count:
            raise ValueError(f"{spec.name}: only {len(chosen)} of {count} images left to attack")
        bare = self.scene.victim.bare
        return list(run(spec, chosen, site, bare, undefended=undefended, tick=tick))
