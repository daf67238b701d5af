"""The `breakwater` command. Imports what a subcommand needs only when it runs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy import __version__
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.config import Config

_SERVE = """\
Stand in front of Triton: inspect, decide, purify, forward, measure.

Without --config it is a hardened pass-through: validation, RPC policy and metrics, no scoring.
Clients change only the address they connect to. Stop it with SIGTERM or POST /drain: it finishes
what is in flight first. SIGHUP (or a changed file) reloads the configuration."""

_CALIBRATE = """\
Learn what benign looks like to this model and set the threshold for the wanted false-positive rate.

Needs benign data only: an .npz file with x (N, C, H, W), uint8 or float32 in [0, 1]. Every image is
also seen noisy, recompressed, brighter, blurred and shifted, so that ordinary variation stays
quiet. The model is asked through Triton, which must be running.

For an input of kind: waveform, x is (N, T) or (N, C, T), int16 or floats in [-1, 1]; for kind:
vector it is (N, D), any numbers. Each kind has benign variations of its own."""

_FIT = """\
Train the networks that the model's detectors and purifiers use, before `calibrate`.

Needs benign data: an .npz file with x (N, C, H, W), uint8 or float32 in [0, 1]; best not the images
that `calibrate` gets. Triton must be running. What is trained against the model itself (guided
parts) also needs --model-file, a local copy that takes what goes over the wire and returns what the
served model returns: torch.export (.pt2), TorchScript (.pt) or ONNX (.onnx, with the extra `onnx`).
A model file is a program: give only your own. `serve` never reads it.

Ctrl-C keeps what was reached, and the same command goes on from there. What is already trained, on
the same data and with the same seed and steps, is kept."""

_TUNE = """\
Measure what each way to run a model's defence costs on this machine, and which one fits a budget.

Starts the sidecar with the configured detectors as pass-through, observing, and enforcing: on the
input alone, with a cascade, sequentially, speculatively, with two workers. Each is a process of its
own in front of the configured Triton, which must be running; the audit log and the shared history
of the real sidecar are left alone. For each it reports

  added p50   what a lone request waits longer than through pass-through
  knee        the most requests a second at which p99 is at most twice that of the idle sidecar
  CPU         of the sidecar, milliseconds a request, at half the knee

Requests arrive at random, on time whether or not earlier ones are answered, and their latency
counts from when they were due. Run it on the machine that will serve, with nothing else on it, and
not against a Triton that others use: finding the knee means overloading it for moments.

Writes DIR/tune.json and DIR/tune.png, and says in two sentences what to take. About 5 minutes;
--quick: 1 to 2."""

_CHECK = """\
Validate a configuration and print what would be enforced, completed from Triton if it answers.
Exit status 0: usable; 1: Triton contradicts it, and a model would go undefended; 2: the file or a
calibration cannot be used."""

_HISTORY = """\
Show who raised alarms: principals whose queries, in series, look like a search for an adversarial
input. Asks a running `breakwater serve` on its admin port.

One alarm puts a principal in quarantine for the model's quarantine_minutes, each doubling of the
alarms for as long again, at most seven times as long. What is done with a principal in quarantine
is the model's query_attacks.action; the caller is not told.

--clear ends a quarantine now, say of a test suite that looked like an attack. It forgets the
alarms, not the queries: who goes on with the same series raises the next alarm. Each replica has a
list of its own: clear at all of them.

What a terminal would act on in a principal's name is printed as an escape like \\x1b; --clear takes
the name as it is printed.

Exit status 0: done; 1: no answer; 2: the command was not understood."""

_DEMO = """\
The whole story on this machine: train a small model, serve it from a real Triton, calibrate, start
the proxy, attack the model without and with it, and print what happened."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        _set_up_log(options.log_level)
        status: int = options.run(options, arguments)
    except ConfigError as error:
        print(f"breakwater: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _set_up_log(default: str) -> None:
    level = os.environ.get("BREAKWATER_LOG", default).upper()
    if level not in logging.getLevelNamesMapping():
        raise ConfigError(f"BREAKWATER_LOG={level}: must be DEBUG, INFO, WARNING or ERROR")
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="breakwater",
        description="Inference-time adversarial-defence proxy for NVIDIA Triton.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"breakwater {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(_command(commands, "serve", "run the sidecar", _SERVE))
    _add_calibrate(_command(commands, "calibrate", "set thresholds from benign data", _CALIBRATE))
    _add_fit(_command(commands, "fit", "train networks for the defence", _FIT))
    _add_tune(_command(commands, "tune", "measure what a defence costs", _TUNE))
    _add_check(_command(commands, "check", "validate a configuration", _CHECK))
    _add_history(_command(commands, "history", "see who attacks with queries", _HISTORY))
    _add_demo(_command(commands, "demo", "see it work, real Triton included", _DEMO))
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    description: str,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=help_text,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (YAML)")
    parser.add_argument("--upstream", metavar="HOST:PORT", help="Triton's gRPC address")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_addresses(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="where clients connect")
    parser.add_argument("--admin", metavar="HOST:PORT", help="metrics, health and drain (HTTP)")
    parser.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="processes sharing the port"
    )
    parser.add_argument("--worker-index", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker-dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker-history", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(run=_serve, log_level="INFO")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_addresses(parser)
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
        type=_named_file,
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
    parser.set_defaults(run=_calibrate, log_level="WARNING")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    _add_addresses(parser)
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
    parser.set_defaults(run=_fit, log_level="WARNING")


def _add_tune(parser: argparse.ArgumentParser) -> None:
    _add_addresses(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="a key under `models`")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="samples x to send (default: random images)"
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="most that the defence may add to the p50 (default: the config's budget_ms)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.set_defaults(run=_tune, log_level="WARNING")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_addresses(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema and exit")
    parser.add_argument(
        "--list", action="store_true", help="print detectors and purifiers and exit"
    )
    parser.set_defaults(run=_check, log_level="ERROR")


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        type=_address,
        default="127.0.0.1:9090",
        metavar="HOST:PORT",
        help="admin port of the sidecar (default: 127.0.0.1:9090)",
    )
    parser.add_argument("--model", metavar="NAME", help="only alarms at this model")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", metavar="PRINCIPAL", help="end this principal's quarantine")
    what.add_argument("--clear-all", action="store_true", help="end everybody's quarantine")
    what.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="go on until Ctrl-C, asking every 2 s or as often as said",
    )
    parser.add_argument("--json", action="store_true", help="print the answer itself, as JSON")
    parser.set_defaults(run=_history, log_level="WARNING")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="pictures and files"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.set_defaults(run=_demo, log_level="WARNING")


def _named_file(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not name.replace("_", "").isalnum() or not file:
        raise argparse.ArgumentTypeError("must be NAME=FILE.npz, the name of letters and digits")
    return name, Path(file)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError("must be more than 0 and less than a day")
    return seconds


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT with a port up to 65535")
    return host.strip("[]"), int(port)


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    names = ("listen", "upstream", "admin")
    return {n: v for n in names if (v := getattr(options, n, None)) is not None}


def _config(options: argparse.Namespace) -> Config:
    from pydantic import ValidationError

    from proxy import configfile
    from proxy.config import Config

    config = Config() if options.config is None else configfile.load(options.config)
    overrides = _overrides(options)
    if overrides:
        try:
            Config.model_validate(overrides)  # the same check as for the file
        except ValidationError as error:
            names = ", ".join(f"--{e['loc'][0]} {e['input']}" for e in error.errors())
            raise ConfigError(f"{names}: not HOST:PORT with a port up to 65535") from error
        config = config.model_copy(update=overrides)
    return config


def _serve(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from proxy.allocator import keep_large_buffers

    keep_large_buffers()
    config = _config(options)
    if options.worker_index is None:
        _warn_of_threads(config, options.workers)
    if options.workers > 1 and options.worker_index is None:
        from proxy.supervisor import supervise

        return asyncio.run(supervise(arguments, config, options.workers))
    return _run_server(options, config)


def _warn_of_threads(config: Config, workers: int) -> None:
    """Say so where more threads would compute than the cgroup has processors for."""
    from proxy import cpu_quota

    if any(model.detectors for model in config.models.values()):
        threads = cpu_quota.thread_count(config.torch_threads, os.environ)
        if text := cpu_quota.advice(workers, threads, cpu_quota.available_cpus()):
            logging.getLogger(__name__).warning("%s", text)


def _run_server(options: argparse.Namespace, config: Config) -> int:
    import uvloop

    from proxy.server import Server
    from proxy.supervisor import watch_parent

    worker = options.worker_index is not None

    async def run() -> int:
        if worker:
            # Without a supervisor nobody would ever stop this process: drain, as if told to.
            watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
        server = Server(
            config,
            path=options.config,
            overrides=_overrides(options),
            share_port=worker,
            admin=options.worker_dir / f"worker-{options.worker_index}.sock" if worker else None,
            history_file=options.worker_history,
        )
        await server.start()
        return await server.run()

    result: int = uvloop.run(run())
    return result


def _calibrate(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.calibrate import run

    if options.config is None:
        raise ConfigError("calibrate needs --config FILE, which names the model's detectors")
    status: int = run(
        _config(options),
        options.model,
        options.data,
        fpr=options.fpr,
        out=options.out,
        seed=options.seed,
        groups=options.group,
        model_file=options.model_file,
    )
    return status


def _fit(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.fit_networks import run

    if options.config is None:
        raise ConfigError("fit needs --config FILE, which names the model's detectors")
    return run(
        _config(options),
        options.model,
        options.data,
        model_file=options.model_file,
        only=options.only,
        steps_scale=options.steps_scale,
        seed=options.seed,
        out=options.out,
    )


def _tune(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.tune import run

    if options.config is None:
        raise ConfigError("tune needs --config FILE, which names the model's detectors")
    status: int = run(
        _config(options),
        options.model,
        data=options.data,
        budget_ms=options.budget_ms,
        out=options.out,
        quick=options.quick,
    )
    return status


def _check(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning import report

    if options.schema:
        return report.print_schema()
    if options.list:
        return report.print_parts()
    return asyncio.run(report.print_policy(_config(options)))


def _history(options: argparse.Namespace, _: Sequence[str]) -> int:
    from proxy import inquiry
    from proxy.history.listing import meant

    admin = inquiry.Address(*options.admin)
    settings = {"model": options.model, "as_json": options.json}
    if options.clear_all:
        return inquiry.clear(admin, None, **settings)
    if options.clear is not None:
        return inquiry.clear(admin, meant(options.clear), **settings)
    return inquiry.show(admin, every_s=options.watch, **settings)


def _demo(options: argparse.Namespace, _: Sequence[str]) -> int:
    from tuning.demo import run

    return run(options.out, json_file=options.json, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
