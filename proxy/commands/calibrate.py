"""`breakwater calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import (
    Commands,
    add_addresses,
    add_lineage,
    command,
    config_of,
    named_file,
)
from proxy.errors import ConfigError

_DESCRIPTION = """\
Learn what benign looks like to this model and set the threshold for the wanted false-positive rate.

Needs benign data only: an .npz file with x (N, C, H, W), uint8 or float32 in [0, 1]. Every image is
also seen noisy, recompressed, brighter, blurred and shifted, so that ordinary variation stays
quiet. The model is asked through Triton, which must be running.

For an input of kind: waveform, x is (N, T) or (N, C, T), int16 or floats in [-1, 1]; for kind:
vector it is (N, D), any numbers. Each kind has benign variations of its own."""


def add(commands: Commands) -> None:
    """Add `calibrate` to the command line."""
    parser = command(commands, "calibrate", "set thresholds from benign data", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE.npz", help="benign samples x, see above"
    )
    parser.add_argument(
        "--fpr", type=float, help="wanted false-positive rate (default: the config's)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: the config's calibration)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the benign variations")
    parser.add_argument(
        "--group",
        type=named_file,
        action="append",
        default=[],
        metavar="NAME=FILE.npz",
        help="another kind of benign traffic, which is to stay quiet too; may be repeated",
    )
    parser.add_argument(
        "--model-file",
        type=Path,
        metavar="FILE",
        help="a copy of the model (.pt, .pt2, .onnx): learn a score from attacks on it as well",
    )
    add_lineage(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.calibrate import run
    from tuning.lineage import Origin

    if options.config is None:
        raise ConfigError("calibrate needs --config FILE, which names the model's detectors")
    status: int = run(
        config_of(options),
        options.model,
        options.data,
        fpr=options.fpr,
        out=options.out,
        seed=options.seed,
        groups=options.group,
        model_file=options.model_file,
        origin=Origin(options.source, options.licence),
    )
    return status
