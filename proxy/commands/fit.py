"""`breakwater fit`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import Commands, add_addresses, command, config_of
from proxy.errors import ConfigError

_DESCRIPTION = """\
Train the networks that the model's detectors and purifiers use, before `calibrate`.

Needs benign data: an .npz file with x (N, C, H, W), uint8 or float32 in [0, 1]; best not the images
that `calibrate` gets. Triton must be running. What is trained against the model itself (guided
parts) also needs --model-file, a local copy that takes what goes over the wire and returns what the
served model returns: torch.export (.pt2), TorchScript (.pt) or ONNX (.onnx, with the extra `onnx`).
A model file is a program: give only your own. `serve` never reads it.

Ctrl-C keeps what was reached, and the same command goes on from there. What is already trained, on
the same data and with the same seed and steps, is kept."""


def add(commands: Commands) -> None:
    """Add `fit` to the command line."""
    parser = command(commands, "fit", "train networks for the defence", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE.npz", help="benign images, x (N,C,H,W)"
    )
    parser.add_argument(
        "--model-file", type=Path, metavar="FILE", help="local copy of the model, for guided parts"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="NAME", help="networks, or parts that use them"
    )
    parser.add_argument(
        "--steps-scale", type=float, default=1.0, metavar="F", help="train F times as long"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: the config's calibration)"
    )
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.fit_networks import run

    if options.config is None:
        raise ConfigError("fit needs --config FILE, which names the model's detectors")
    return run(
        config_of(options),
        options.model,
        options.data,
        model_file=options.model_file,
        only=options.only,
        steps_scale=options.steps_scale,
        seed=options.seed,
        out=options.out,
    )
