"""`breakwater tune`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from proxy.commands.options import Commands, add_addresses, command, config_of, positive
from proxy.errors import ConfigError

_DESCRIPTION = """\
Find the policy for one model that leaves least to attackers within what it may cost.

Which detectors, at which false-positive rate, with a cascade or not, what is done with what is
suspicious, and when the request is sent on: some 200 combinations are weighed by the recorded
scores of an evaluation (`breakwater evaluate`) and by what a few of them cost on this machine, each
in a sidecar of its own in front of the configured Triton, which must be running. One half of the
recorded samples is searched; the other half, attacks of families that are kept back, and images of
--data that nobody has seen tell what the choice is worth.

Without --evaluation, or with --detectors, a larger set of detectors is calibrated on one part of
the data and evaluated on another first, which takes as long as `breakwater evaluate`.

Prints, for each threat model, the policies of which none is both cheaper and better, and says in
two sentences what to take. Writes to DIR

  policy.yaml        the configuration with the recommended policy, and calibration/NAME
  tune.json          every candidate, what was measured, predicted and kept
  tune.png           harm over latency

--capacity instead finds how much load each way to run the configured defence takes: about 5 minutes
(--quick: 1 to 2), and Triton is overloaded for moments."""


def add(commands: Commands) -> None:
    """Add `tune` to the command line."""
    parser = command(commands, "tune", "find the policy that fits a budget", _DESCRIPTION)
    add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="benign samples x, with labels y"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    _add_basis(parser)
    _add_limits(parser)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument(
        "--capacity",
        action="store_true",
        help="how much load each way to run the configured defence takes, instead of a search",
    )
    parser.set_defaults(run=_run, log_level="WARNING")


def _add_basis(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluation", type=Path, metavar="DIR", help="what `breakwater evaluate` wrote"
    )
    parser.add_argument(
        "--model-file", type=Path, metavar="COPY", help="a copy of the model, to attack it"
    )
    parser.add_argument(
        "--detectors",
        type=_names,
        default=(),
        metavar="A,B,...",
        help="weigh these (default: those evaluated, or those configured and some that need no "
        "training)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the halves and of the search")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="most that the defence may add to the p99 (default: the config's budget_ms)",
    )
    parser.add_argument(
        "--max-fpr",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="most false alarms in any benign group (default: 0.01)",
    )
    parser.add_argument(
        "--max-accuracy-loss",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="most accuracy lost on clean samples (default: 0.01)",
    )
    parser.add_argument(
        "--threat",
        default="",
        metavar="NAME",
        help="recommend against this threat model, e.g. transfer (default: all attacks)",
    )
    parser.add_argument("--trials", type=positive, default=200, help="candidates (default: 200)")
    parser.add_argument(
        "--may-block",
        action="store_true",
        help="recommend a policy that refuses requests where that is best (default: only where "
        "the configuration does): a refusal tells an attacker what is suspicious",
    )
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.yaml", help="the same figures for its policy"
    )


def _names(text: str) -> tuple[str, ...]:
    """Read names between commas."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError("must be names with commas between them")
    return names


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    if options.config is None:
        raise ConfigError("tune needs --config FILE, which names the model's detectors")
    if options.capacity:
        return _capacity(options)
    if options.data is None:
        raise ConfigError("tune needs --data FILE.npz, to check on it what it recommends")
    try:
        from tuning.search.basis import Given
        from tuning.tune import Wish, run
    except ImportError as error:
        raise ConfigError(f"tune needs more: pip install 'breakwater[tune]' ({error})") from error

    config = config_of(options)
    given = Given(
        config=config,
        name=options.model,
        data=options.data,
        out=options.out,
        model_file=options.model_file,
        evaluation=options.evaluation,
        detectors=options.detectors,
        quick=options.quick,
        seed=options.seed,
    )
    budget_ms = options.budget_ms if options.budget_ms is not None else given.model.budget_ms
    wish = Wish(
        added_p99_ms=budget_ms,
        max_fpr=options.max_fpr,
        max_loss=options.max_accuracy_loss,
        threat=options.threat,
        trials=options.trials,
        may_block=options.may_block or given.model.action == "block",
        compare=options.compare,
    )
    told = shlex.join(["breakwater", *arguments])
    status: int = run(given, wish, options.config, command=told)
    return status


def _capacity(options: argparse.Namespace) -> int:
    from tuning.capacity import run

    status: int = run(
        config_of(options),
        options.model,
        data=options.data,
        budget_ms=options.budget_ms,
        out=options.out,
        quick=options.quick,
    )
    return status
