"""`breakwater calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.commands.control_port import add_control, with_client
from proxy.commands.options import (
    Commands,
    add_addresses,
    add_lineage,
    address,
    command,
    config_of,
    named_file,
    share,
)
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.control.client import Client

_DESCRIPTION = """\
Learn what benign looks like to this model and set the threshold for the wanted false-positive rate.

Needs benign data only: an .npz file with x (N, C, H, W), uint8 or float32 in [0, 1]. Every image is
also seen noisy, recompressed, brighter, blurred and shifted, so that ordinary variation stays
quiet. The model is asked through Triton, which must be running.

For an input of kind: waveform, x is (N, T) or (N, C, T), int16 or floats in [-1, 1]; for kind:
vector it is (N, D), any numbers. Each kind has benign variations of its own.

With --live, thresholds follow from the scores a running sidecar has recorded of its traffic (mode
observe, no cascade), without anybody seeing the inputs. Detectors stay as they were fitted; what
was sent again and again, by one principal, in chains of queries, or stands out is left out, and
what is labelled (`breakwater label`) counts as it is labelled. Needs 15 / fpr samples."""


def add(commands: Commands) -> None:
    """Add `calibrate` to the command line."""
    parser = command(commands, "calibrate", "set thresholds from benign data", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FILE.npz", help="benign samples x, see above")
    source.add_argument("--live", action="store_true", help="recorded scores of live traffic")
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
    _add_live(parser)
    parser.set_defaults(run=_run, log_level="WARNING")


def _add_live(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group("with --live")
    live.add_argument(
        "--replica",
        type=address,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="control port of another replica, beside --control; may be repeated",
    )
    live.add_argument(
        "--records",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="scores saved from /records/scores, instead of asking; may be repeated",
    )
    live.add_argument(
        "--replace",
        action="store_true",
        help="rest on live traffic alone, instead of on the benign groups there are besides",
    )
    live.add_argument(
        "--accept-drift",
        action="store_true",
        help="take what stands out for benign: the traffic has changed, and you know why",
    )
    live.add_argument(
        "--principal-share",
        type=share,
        default=0.1,
        metavar="S",
        help="most that one principal may give of all samples (default: 0.1; 1: no limit)",
    )
    add_control(parser)


def _run(options: argparse.Namespace, _: Sequence[str]) -> int:
    if options.config is None:
        raise ConfigError("calibrate needs --config FILE, which names the model's detectors")
    return _from_traffic(options) if options.live else _from_data(options)


def _from_traffic(options: argparse.Namespace) -> int:
    from tuning import live
    from tuning.live_calibration import Wanted

    if options.group or options.model_file is not None:
        raise ConfigError("--group and --model-file go with --data, not with --live")
    config = config_of(options)
    snapshots = [live.read_file(path) for path in options.records]

    def fetch(client: Client) -> int:
        snapshots.append(live.fetch(client, options.model))
        return 0

    if not options.records:
        for place in (options.control, *options.replica):
            asked = argparse.Namespace(**{**vars(options), "control": place})
            if status := with_client(asked, fetch):
                return status
    wanted = Wanted(
        live.rate(config, options.model) if options.fpr is None else options.fpr,
        replace=options.replace,
        accept_drift=options.accept_drift,
        share=options.principal_share,
        seed=options.seed,
    )
    return live.run(config, options.model, snapshots, wanted, out=options.out)


def _from_data(options: argparse.Namespace) -> int:
    from tuning.calibrate import run
    from tuning.lineage import Origin

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
