"""What purifiers do to photographs of 224x224: a picture to look at, structure lost, CPU cost.

Every registered purifier at its defaults, and some other settings. `--data DIR` has photographs
(JPEG or PNG) in `DIR/photos`; they are cropped to squares and scaled. `--out DIR` gets
`photographs.png`: for each purifier its output, a detail enlarged four times, and the difference
to the original, enlarged eight times about grey. Purifiers with a network are left out, and said
to be, unless `--weights DIR` names a calibration's folder where `breakwater fit` has put theirs.

On an idle core: about 3 minutes, with --quick 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

import purifiers
from loadtests.harness import Report, Row, median, options, warn_if_busy
from proxy.errors import ConfigError
from proxy.weights import give, load
from purifiers import Chain, Purifier
from purifiers.base import Kind
from purifiers.learned import Learned

SIDE = 224
SUFFIXES = {".jpg", ".jpeg", ".png"}
BATCHES = (1, 32)
REFERENCE = "jpeg(quality=75)"
"""The purifier whose cost the others are compared with: part of the first set since it exists."""
OTHERS: tuple[tuple[str, dict[str, int | float | bool]], ...] = (
    ("jpeg", {"quality": 50}),
    ("jpeg", {"quality": 75, "subsample": True}),
    ("median", {"size": 3}),
)
SHOWN, DETAIL, GAIN = 3, 56, 8.0
LABEL, GAP = 300, 6


def photographs(folder: Path, count: int) -> Tensor:
    """The first `count` photographs, (N, 3, 224, 224) in [0, 1], of 8 bits.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:count]
    if not files:
        raise SystemExit(f"no photographs in {folder}")
    pixels = []
    for file in files:
        with Image.open(file) as image:
            square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)
            pixels.append(np.asarray(square))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255


def candidates(weights: Path | None) -> tuple[dict[str, Purifier], dict[str, str]]:
    """Purifiers that can run here, by key; those that cannot, with the reason."""
    built = [purifiers.build(name) for name in purifiers.PURIFIERS]
    built += [purifiers.build(name, params) for name, params in OTHERS]
    # The best single answers that were found without training (`purifiers.tv`).
    coded = purifiers.Jpeg(quality=75, subsample=True)
    built.append(Chain([coded, purifiers.TotalVariation()]))
    built.append(Chain([purifiers.Mirror(), coded, purifiers.TotalVariation()]))
    ready, left_out = {}, {}
    for purifier in (purifier for purifier in built if Kind.IMAGE in purifier.kinds):
        reason = equip(purifier, weights)
        if reason is None:
            ready[purifier.key] = purifier
        else:
            left_out[purifier.key] = reason
    return ready, left_out


def equip(purifier: Purifier, weights: Path | None) -> str | None:
    """Give a purifier its trained network if it needs one; why that is not possible."""
    if not isinstance(purifier, Learned):
        return None
    if weights is None:
        return "needs trained weights; none given"
    try:
        give([purifier], load(weights, "photographs", [purifier], torch.device("cpu")))
    except ConfigError as error:
        return str(error)
    return None


def seeded() -> torch.Generator:
    """The choices of random purifiers, the same on every call."""
    return torch.Generator().manual_seed(0)


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of brightness for each pair of images, (B,), our own implementation.

    Gaussian window of 11x11, sigma 1.5, only where it fits; K1 = 0.01, K2 = 0.03, range 1.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13(4), 2004, 3.2.
    """
    taps = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    a, b = (F.conv2d(image, weights) for image in (x, y))
    mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
    var_a = F.conv2d(a * a, window) - mean_a**2
    var_b = F.conv2d(b * b, window) - mean_b**2
    both = F.conv2d(a * b, window) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def report_change(x: Tensor, purified: Mapping[str, Tensor], report: Report) -> None:
    """How far each purifier moves clean photographs."""
    for key, y in purified.items():
        alike = similarity(x, y)
        report.add(
            purifier=key,
            photographs=len(x),
            ssim_mean=round(float(alike.mean()), 4),
            ssim_worst=round(float(alike.min()), 4),
            levels_changed_mean=round(float((x - y).abs().mean() * 255), 3),
        )


def report_cost(x: Tensor, ready: Mapping[str, Purifier], rounds: int, report: Report) -> None:
    """CPU milliseconds an image, one thread: the median of rounds that take turns."""
    spent: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for key, purifier in ready.items():
            for batch in BATCHES:
                spent.setdefault((key, batch), []).append(cpu_ms(purifier, x, batch))
    cost = {which: median(times) for which, times in spent.items()}
    for key in ready:
        row: Row = {"purifier": key}
        for batch in BATCHES:
            row[f"cpu_ms_image_batch_{batch}"] = round(cost[key, batch], 3)
            ratio = cost[key, batch] / cost[REFERENCE, batch]
            row[f"times_jpeg_batch_{batch}"] = round(ratio, 3)
        report.add(**row)


def cpu_ms(purifier: Purifier, x: Tensor, batch: int) -> float:
    """Cost of an image in one call on a full batch; photographs are repeated to fill it."""
    filled = x.repeat(-(-batch // len(x)), 1, 1, 1)[:batch]
    generator = seeded()
    start = time.process_time()
    purifier.purify(filled, generator)
    return (time.process_time() - start) / batch * 1000


def picture(x: Tensor, purified: Mapping[str, Tensor]) -> Image.Image:
    """A sheet with a row for each purifier, and three columns for each of the photographs."""
    cell = SIDE + GAP
    rows = {"original": x, **purified}
    size = (LABEL + 3 * cell * len(x), cell * len(rows))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for line, (key, y) in enumerate(rows.items()):
        draw.multiline_text((8, line * cell + 90), broken(key), fill="black", font=font)
        for column, panel in enumerate(panels(x, y)):
            sheet.paste(panel, (LABEL + column * cell, line * cell))
    return sheet


def broken(key: str) -> str:
    """A key in lines that fit the margin."""
    return key.replace(" > ", "\n> ").replace("(", "\n(")


def panels(x: Tensor, y: Tensor) -> list[Image.Image]:
    """For each photograph: the output, its detail, its difference."""
    difference = 0.5 + GAIN * (y - x)
    found = []
    for image, change in zip(y, difference, strict=True):
        start = (SIDE - DETAIL) // 2
        detail = image[:, start : start + DETAIL, start : start + DETAIL]
        enlarged = as_image(detail).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        found += [as_image(image), enlarged, as_image(change)]
    return found


def as_image(x: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as an image."""
    return Image.fromarray((x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def spread(count: int, wanted: int) -> Sequence[int]:
    """Indices of `wanted` photographs evenly over `count`."""
    return [int(i) for i in torch.linspace(0, count - 1, min(wanted, count)).round()]


def main() -> int:
    """Look at photographs; 0 unless something goes wrong."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="has photos/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the picture")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a calibration's folder")
    chosen = parser.parse_args()
    warn_if_busy()
    torch.set_num_threads(1)
    x = photographs(chosen.data / "photos", 16 if chosen.quick else 48)
    ready, left_out = candidates(chosen.weights)
    report = Report("Purifiers on photographs of 224x224")
    for key, reason in left_out.items():
        report.add(purifier=key, left_out_because=reason)
    purified = {key: purifier.purify(x, seeded()) for key, purifier in ready.items()}
    report_change(x, purified, report)
    report_cost(x, ready, 3 if chosen.quick else 7, report)
    chosen.out.mkdir(parents=True, exist_ok=True)
    shown = spread(len(x), SHOWN)
    sheet = picture(x[shown], {key: y[shown] for key, y in purified.items()})
    sheet.save(chosen.out / "photographs.png")
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
