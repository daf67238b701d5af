"""What is caught, and what is flagged wrongly: the defence library measured on CIFAR-10.

Detectors are fitted and calibrated on benign images alone, as `breakwater calibrate` does, and
networks trained as `breakwater fit` does, each with one kind of attack left out; then they meet the
attacks of `tuning.evaluate.attacks`, fresh benign images, benign kinds nobody calibrated on,
transferred attacks and an attacker who knows them. The model is called directly: this measures the
maths.

Needs a folder with `cifar10/train.npz` and `cifar10/test.npz` (arrays `jpeg`: all files in a row,
`offset` and `label`) and `cifar10/resnet20.pt`, `resnet32.pt`, states of the networks in
`loadtests.cifar`. What has been worked out is kept under --out, and used again by the next run.
On two cores about 40 minutes, with --quick 5. Writes report.json and report.html there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from loadtests.harness import options
from loadtests.quality import readme
from loadtests.quality.images import FULL, QUICK
from loadtests.quality.study import run


def main() -> int:
    """Run the study; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("quality-out"),
        metavar="DIR",
        help="report and intermediate results (default: quality-out)",
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="rewrite the tables between this file's markers"
    )
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else FULL
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        report = run(chosen.data, chosen.out, sizes, progress)
    if chosen.readme is not None:
        readme.update(chosen.readme, report.rows)
    return report.finish(chosen.json or chosen.out / "report.json")


if __name__ == "__main__":
    sys.exit(main())
