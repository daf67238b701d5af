"""The demo's story, told in order: train, serve, calibrate, defend, attack, compare."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import purifiers
from proxy import configfile
from proxy.errors import ConfigError
from tuning import calibrate
from tuning.demo import digits, picture, policy, table, traffic
from tuning.demo.sidecar import Sidecar
from tuning.triton import EmbeddedTriton, TritonUnavailable

SEND = 150
"""Images of each kind sent, without and with the proxy."""
_SHOWN = 6


def run(out: Path, *, json_file: Path | None = None, keep: bool = False) -> int:
    """Run the demo; writes `out`/picture.png, metrics.txt and results.json.

    Args:
        json_file: another place for the figures.
        keep: leave Triton and the proxy running until interrupted, and print their addresses.

    Raises:
        ConfigError: a part cannot be started; says what to do.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress(console))
        story = _Story(out, progress, stack)
        rows = story.tell()
        progress.stop()
        table.show(console, rows)
        console.print(f"\npicture   {out / 'picture.png'}")
        console.print(f"metrics   {out / 'metrics.txt'}")
        console.print(f"took {time.monotonic() - started:.0f} s")
        for file in filter(None, (out / "results.json", json_file)):
            file.write_text(json.dumps({"command": "breakwater demo", "rows": rows}, indent=2))
        if keep:
            _wait(console, story, out)
    return 0


class _Story:
    """The demo's steps with what they leave running."""

    def __init__(self, out: Path, progress: Progress, stack: contextlib.ExitStack) -> None:
        self._out = out
        self._progress = progress
        self._stack = stack
        self._steps = progress.add_task("demo", total=None)
        self.triton: EmbeddedTriton | None = None
        self.sidecar: Sidecar | None = None

    def tell(self) -> list[table.Row]:
        """All steps in order; the rows of the table."""
        data = digits.load()
        net = self._train(data)
        x, y = data.test[0][:SEND], data.test[1][:SEND]
        triton = self._serve(net)
        config = policy.write(self._out, triton.grpc_address)
        self._calibrate(config, data)
        with self._step("attack", traffic.ATTACKS) as tick:
            kinds = traffic.kinds(net, x, y, tick)
        with self._step("start the proxy", 1) as tick:
            sidecar = self.sidecar = Sidecar(config, self._out / "breakwater.log")
            self._stack.callback(sidecar.stop)
            tick()
        rows = self._drive(kinds, triton, sidecar)
        self._draw(kinds, sidecar)
        (self._out / "metrics.txt").write_text(sidecar.metrics())
        return rows

    def _train(self, data: digits.Digits) -> torch.nn.Module:
        with self._step("train the model", digits.EPOCHS) as tick:
            torch.set_num_threads(1)  # faster than two threads for layers this small
            return digits.train(*data.train, tick)

    def _serve(self, net: torch.nn.Module) -> EmbeddedTriton:
        with self._step("start Triton", 1) as tick:
            repository = digits.write_repository(net, self._out / "models")
            triton = EmbeddedTriton(repository, log=self._out / "triton.log")
            try:
                self.triton = self._stack.enter_context(triton)
            except TritonUnavailable as error:
                raise ConfigError(str(error)) from error
            tick()
        return triton

    def _calibrate(self, config: Path, data: digits.Digits) -> None:
        with self._step("calibrate on benign digits", 1) as tick:
            file = self._out / "benign.npz"
            np.savez(file, x=data.calibrate[0].numpy(), y=data.calibrate[1].numpy())
            with (self._out / "calibrate.log").open("w") as log:
                calibrate.run(
                    configfile.load(config), digits.MODEL, file, console=Console(file=log)
                )
            tick()

    def _drive(
        self, kinds: list[traffic.Kind], triton: EmbeddedTriton, sidecar: Sidecar
    ) -> list[table.Row]:
        rows = []
        direct = traffic.Client(triton.grpc_address, None)
        defended = traffic.Client(sidecar.address, sidecar.metrics)
        with self._step("send traffic", 2 * sum(len(k.x) for k in kinds)) as tick:
            for kind in kinds:
                without = direct.send(kind, tick)
                rows.append(table.row(kind, without, defended.send(kind, tick)))
        direct.close()
        defended.close()
        return rows

    def _draw(self, kinds: list[traffic.Kind], sidecar: Sidecar) -> None:
        clean, attacked = kinds[0], kinds[-1]
        chain = purifiers.Chain(
            [purifiers.build(p["name"], p.get("params", {})) for p in policy.PURIFIERS]
        )
        shown = slice(0, _SHOWN)
        purified = chain.purify(torch.from_numpy(attacked.x[shown])).numpy()
        original = traffic.verdicts(sidecar.address, list(clean.x[shown]))
        defended = traffic.verdicts(sidecar.address, list(attacked.x[shown]))
        raw = traffic.Client(self.triton.grpc_address if self.triton else "", None)
        fooled = [raw.classify(image) for image in attacked.x[shown]]
        raw.close()
        labels = clean.y[shown]
        rows = [
            (
                "original",
                [
                    picture.Panel(x, f"says {said}, {verdict}", verdict != "pass")
                    for x, (verdict, said) in zip(clean.x[shown], original, strict=True)
                ],
            ),
            (
                attacked.name,
                [
                    picture.Panel(x, f"undefended: {said}", said != label)
                    for x, said, label in zip(attacked.x[shown], fooled, labels, strict=True)
                ],
            ),
            (
                "purified",
                [
                    picture.Panel(x, f"{verdict}: now {said}", said != label)
                    for x, (verdict, said), label in zip(purified, defended, labels, strict=True)
                ],
            ),
        ]
        picture.draw(self._out / "picture.png", "Digits through Breakwater", rows)

    @contextlib.contextmanager
    def _step(self, title: str, total: int) -> Iterator[Any]:
        self._progress.update(self._steps, description=title, completed=0, total=total)
        yield lambda: self._progress.advance(self._steps)
        self._progress.console.print(f"[green]done[/green] {title}")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _wait(console: Console, story: _Story, out: Path) -> None:
    if story.sidecar is None or story.triton is None:
        return
    console.print(f"\nTriton       grpc://{story.triton.grpc_address} (undefended)")
    console.print(f"Breakwater   grpc://{story.sidecar.address}")
    console.print(f"metrics      http://{story.sidecar.admin}/metrics")
    console.print(f"console      http://{story.sidecar.admin}/console/")
    console.print(f"its token    in {out / policy.TOKEN_FILE}")
    console.print("Ctrl-C ends both.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
