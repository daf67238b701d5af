"""Whether audit logs are as they were written, as far as their chains and anchors tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from proxy.audit_chain import FIRST, START, Link, read
from proxy.errors import ConfigError

MOST_BREAKS = 1000
"""Breaks told; more are counted."""
LONGEST = 1 << 20
"""Bytes of a line; ours have a tenth of that."""

Kind = Literal["edited", "removed", "inserted", "reordered", "truncated"]


@dataclass(slots=True)
class Break:
    """A place where a log is not as it was written."""

    place: str
    """FILE:LINE, or FILE."""
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of a chain at some time, kept elsewhere."""

    run: str
    seq: int
    seal: str

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Read RUN:SEQ:SEAL; raises ConfigError."""
        run, _, rest = text.partition(":")
        seq, _, seal = rest.partition(":")
        if not (run and seq.isascii() and seq.isdigit() and len(seq) < 20 and len(seal) == 64):
            raise ConfigError(
                f"--anchor {text!r}: not RUN:SEQ:DIGEST, as the process log says after 'audit head'"
            )
        return cls(run, int(seq), seal.lower())


@dataclass(slots=True)
class _Gap:
    """Lines missing within a file, unless they stand further down."""

    first: int
    last: int
    told: Break
    seen: int = 0


@dataclass(slots=True)
class _Piece:
    """What one file has of a run."""

    file: Path
    line: int
    first: Link
    last: Link
    gaps: list[_Gap] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What was found."""

    lines: int = 0
    """Of a chain and as they were written."""
    torn: list[str] = field(default_factory=list)
    """FILE:LINE of beginnings of lines, as a full disk or a crash leaves them."""
    lost: int = 0
    """Lines that the log itself says it lost."""
    late: dict[str, int] = field(default_factory=dict)
    """Runs whose beginning is not in the files, and where they start."""
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Run -> place and seal of its last line."""
    breaks: list[Break] = field(default_factory=list)
    more: int = 0
    """Breaks beyond those told."""

    def broken(self, place: str, kind: Kind, text: str) -> Break:
        """Note a break."""
        found = Break(place, kind, text)
        if len(self.breaks) < MOST_BREAKS:
            self.breaks.append(found)
        else:
            self.more += 1
        return found


def verify(files: Sequence[Path], key: bytes | None, anchors: Iterable[Anchor] = ()) -> Report:
    """Look at all of a log, in however many files and whichever order of these.

    Args:
        files: those of one log; each once.
        key: what it was sealed with; None for plain digests.
        anchors: ends of its chains at some time.

    Raises:
        ConfigError: a file cannot be read, or was sealed with a key and there is none.
    """
    report = Report()
    wanted = {(each.run, each.seq): each for each in anchors}
    pieces: dict[str, list[_Piece]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                for run, piece in _File(path, key, report, wanted).read(file).items():
                    pieces.setdefault(run, []).append(piece)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    for run, parts in pieces.items():
        _join(run, sorted(parts, key=lambda part: part.first.seq), report)
    for anchor in wanted.values():
        _unmet(anchor, report)
    return report


class _File:
    """Reads one file of a log."""

    def __init__(
        self,
        path: Path,
        key: bytes | None,
        report: Report,
        wanted: dict[tuple[str, int], Anchor],
    ) -> None:
        self._path, self._key, self._report, self._wanted = path, key, report, wanted
        self._pieces: dict[str, _Piece] = {}

    def read(self, file: BinaryIO) -> dict[str, _Piece]:
        number, is_new = 0, True
        while text := file.readline(LONGEST):
            number += is_new
            is_new = text.endswith(b"\n")
            text = text.removesuffix(b"\n")
            for part in _parts(text):
                self._line(f"{self._path}:{number}", number, part)
        return self._pieces

    def _line(self, place: str, number: int, text: bytes) -> None:
        link = read(text)
        if link is None:
            if _is_beginning(text):
                self._report.torn.append(place)
            else:
                self._report.broken(place, "inserted", "no line of a chain, or its end was edited")
            return
        if link.is_keyed and self._key is None:
            raise ConfigError(f"{place}: sealed with a key: give it with --key-file")
        if not link.holds(self._key):
            unkeyed = self._key is not None and not link.is_keyed
            text_ = "sealed without the key" if unkeyed else "not what was sealed (or another key)"
            self._report.broken(place, "edited", text_)
        else:
            self._report.lines += 1
            self._report.lost += link.lost
        self._follow(place, number, link)

    def _follow(self, place: str, number: int, link: Link) -> None:
        """Compare a line's place in its chain with that of the line before it."""
        anchor = self._wanted.get((link.run, link.seq))
        if anchor is not None:
            del self._wanted[link.run, link.seq]
            if anchor.seal != link.seal:
                self._report.broken(place, "edited", "another line than the anchor's")
        piece = self._pieces.get(link.run)
        if piece is None:
            self._pieces[link.run] = _Piece(self._path, number, link, link)
            return
        seq = piece.last.seq
        if link.seq <= seq:
            self._again(place, piece, link)
            return
        if link.seq > seq + 1:
            text = f"run {link.run}: lines {seq + 1} to {link.seq - 1} are missing before this one"
            told = self._report.broken(place, "removed", text)
            piece.gaps.append(_Gap(seq + 1, link.seq - 1, told))
        elif link.prev != piece.last.seal:
            self._report.broken(
                place, "edited", f"run {link.run}: the line before it is not the one it followed"
            )
        piece.last = link

    def _again(self, place: str, piece: _Piece, link: Link) -> None:
        for gap in piece.gaps:
            if gap.first <= link.seq <= gap.last:
                gap.seen += 1
                if gap.seen == gap.last - gap.first + 1:
                    gap.told.kind = "reordered"
                    gap.told.text = f"run {link.run}: out of order, up to {place}"
                    piece.gaps.remove(gap)
                return
        self._report.broken(place, "inserted", f"run {link.run}: line {link.seq} once more")


def _parts(text: bytes) -> list[bytes]:
    """A line, or several: after half of one, or one without its end, another worker's follows."""
    first, *more = text.split(START)
    return [part for part in (first, *(START + each for each in more)) if part]


def _is_beginning(text: bytes) -> bool:
    """Whether no more than its end keeps this from being a line."""
    return START.startswith(text[: len(START)]) and not text.endswith(b"}")


def _join(run: str, pieces: list[_Piece], report: Report) -> None:
    """Compare where the files of a run end and begin."""
    first = pieces[0].first
    if first.seq != 1:
        report.late[run] = first.seq
    elif first.prev != FIRST:
        place = f"{pieces[0].file}:{pieces[0].line}"
        report.broken(place, "edited", f"run {run}: does not begin as a chain does")
    last = pieces[0].last
    for piece in pieces[1:]:
        place = f"{piece.file}:{piece.line}"
        if piece.first.seq <= last.seq:
            text = f"run {run}: line {piece.first.seq} is in more than one file"
            report.broken(place, "inserted", text)
        elif piece.first.seq > last.seq + 1:
            text = f"run {run}: lines {last.seq + 1} to {piece.first.seq - 1} are in no file"
            report.broken(place, "removed", text)
        elif piece.first.prev != last.seal:
            text = f"run {run}: the line before it, in another file, is not the one it followed"
            report.broken(place, "edited", text)
        last = max(last, piece.last, key=lambda link: link.seq)
    report.ends[run] = last.seq, last.seal


def _unmet(anchor: Anchor, report: Report) -> None:
    """Note an anchor whose line is not there."""
    seq, _ = report.ends.get(anchor.run, (0, ""))
    if anchor.seq > seq:
        text = f"the chain ends at line {seq}" if seq else "nothing is there of this run"
        kind: Kind = "truncated"
    else:
        text, kind = "that line is not in these files", "removed"
    report.broken(f"anchor {anchor.run}:{anchor.seq}", kind, text)
