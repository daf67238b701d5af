"""`breakwater evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import (
    Commands,
    add_addresses,
    add_lineage,
    address,
    command,
    config_of,
    positive,
)
from proxy.errors import ConfigError

_DESCRIPTION = """\
Attack a model as it is defended, and say what the defence is worth.

Needs labelled images that nothing was calibrated on: an .npz file with x (N, C, H, W) and y (N,).
Attackers differ by what they know:

  oblivious   a copy of the model (--model-file), nothing of the defence
  transfer    a model of their own: --surrogate-file, or one trained on the served model's answers
  query       nothing; they ask the running sidecar, with the defence in the loop
  grey-box    the model and the purifiers, neither detectors nor calibration
  adaptive    everything: gradients through purifiers (BPDA, EOT) and a joint loss on the detectors

Without --model-file those that know the model are left out. Benign variations, kinds of benign
images never calibrated on and images of no class are measured beside. Starts sidecars of its own
from the configuration, one for each action, or asks the one at --endpoint; Triton must be running.

Writes DIR/report.json, DIR/report.html and DIR/scores.safetensors (for `breakwater tune`). What is
done is kept in DIR/work: stopped with Ctrl-C, the same command goes on. About 20 minutes on two
processors for 32x32 images; --quick: under 3."""

_THREATS = {"oblivious": "oblivious", "transfer": "transfer", "query": "black-box query"}
_THREATS |= {"grey-box": "grey-box", "adaptive": "adaptive"}


def add(commands: Commands) -> None:
    """Add `evaluate` to the command line."""
    parser = command(commands, "evaluate", "attack the defended model and report", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE.npz", help="labelled images x, y"
    )
    parser.add_argument(
        "--model-file", type=Path, metavar="FILE", help="a copy of the model (.pt, .pt2, .onnx)"
    )
    parser.add_argument(
        "--surrogate-file",
        type=Path,
        metavar="FILE",
        help="a model that attackers may have instead, with the same inputs and classes",
    )
    parser.add_argument("--attacks", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument(
        "--threats", nargs="+", default=[], choices=tuple(_THREATS), help="only these attackers"
    )
    parser.add_argument("--samples", type=positive, metavar="N", help="images attacked")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--quick", action="store_true", help="fewer images and attacks")
    parser.add_argument(
        "--endpoint",
        type=address,
        metavar="HOST:PORT",
        help="a running sidecar to ask instead of starting some; set annotate: true there",
    )
    add_lineage(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.set_defaults(run=_run, log_level="ERROR")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    if options.config is None:
        raise ConfigError("evaluate needs --config FILE, which names the model's defence")
    try:
        from tuning.evaluate.run import run
        from tuning.evaluate.wanted import Wanted
        from tuning.lineage import Origin
    except ImportError as error:
        raise ConfigError(
            f"evaluate needs the attack libraries: pip install 'breakwater[evaluate]' ({error})"
        ) from error
    host, port = options.endpoint or ("", 0)
    wanted = Wanted(
        model_file=options.model_file,
        surrogate_file=options.surrogate_file,
        attacks=tuple(options.attacks),
        threats=tuple(_THREATS[name] for name in options.threats),
        samples=options.samples,
        seed=options.seed,
        quick=options.quick,
        endpoint=f"{host}:{port}" if host else None,
        origin=Origin(options.source, options.licence),
    )
    status: int = run(config_of(options), options.model, options.data, options.out, wanted)
    return status
