"""Samples of late, so many at most; what an operator has labelled stays longest.

Room is shared out: a client that sends many cannot push out those of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from proxy.records.record import Label, Record


class Recent:
    """Records by id. When full, the principal with most of those without a label loses its oldest.

    Of several with as many, the oldest goes.

    Args:
        capacity: most records kept. Labelled ones take up half of that at most: then the oldest
            of them goes, so that new ones always find room.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Dictionaries keep the order in which keys came.
        self._plain: dict[str, Record] = {}
        self._labelled: dict[str, Record] = {}
        # Of those without a label: how many each principal has, how many principals have so many,
        # and the most that any has.
        self._held: Counter[str] = Counter()
        self._sizes: Counter[int] = Counter()
        self._most = 0

    def __len__(self) -> int:
        return len(self._plain) + len(self._labelled)

    def add(self, record: Record) -> None:
        """Keep a record; what was noted on one of the same id stays noted."""
        old = self.find(record.id)
        if old is not None:
            noted = ("label", "shadow", "thumbnail")
            kept = {name: getattr(record, name) or getattr(old, name) for name in noted}
            record = replace(record, **kept)
        if record.id in self._labelled:
            self._labelled[record.id] = record
            return
        self._put(record)
        if len(self) > self._capacity:
            held, most = self._held, self._most
            # Who fills the ring is soon met: 15 us for 256 records of others before.
            self._take(next(i for i, r in self._plain.items() if held[r.principal] == most))

    def find(self, id_: str) -> Record | None:
        """The record of this id, while it is kept."""
        return self._plain.get(id_) or self._labelled.get(id_)

    def newest(self, model: str | None, limit: int, before: float | None) -> list[Record]:
        """Records, newest first.

        Args:
            model: of this one only.
            limit: so many at most.
            before: older than this only, Unix time.
        """
        chosen = [
            record
            for record in self._all()
            if (model is None or record.model == model)
            and (before is None or record.time_s < before)
        ]
        # The sort is stable: of those that finished at the same moment, the last one added first.
        chosen.reverse()
        chosen.sort(key=lambda record: record.time_s, reverse=True)
        return chosen[: max(0, limit)]

    def label(self, id_: str, label: Label) -> Record | None:
        """The record with its new label; None where it is not kept."""
        record = self._take(id_) or self._labelled.pop(id_, None)
        if record is None:
            return None
        record = replace(record, label=label)
        if label:
            self._labelled[id_] = record
        else:
            self._put(record)
        if len(self._labelled) > max(1, self._capacity // 2):
            del self._labelled[next(iter(self._labelled))]
        return record

    def _put(self, record: Record) -> None:
        if record.id not in self._plain:
            self._count(record.principal, 1)
        self._plain[record.id] = record

    def _take(self, id_: str) -> Record | None:
        record = self._plain.pop(id_, None)
        if record is not None:
            self._count(record.principal, -1)
        return record

    def _count(self, principal: str, change: int) -> None:
        """A principal has one record more, or less."""
        before = self._held[principal]
        now = before + change
        for size, by in ((before, -1), (now, 1)):
            self._sizes[size] += by
            if not self._sizes[size]:
                del self._sizes[size]
        self._held[principal] = now
        if not now:
            del self._held[principal]
        if now > self._most or self._most not in self._sizes:
            self._most = now

    def _all(self) -> Iterator[Record]:
        yield from self._labelled.values()
        yield from self._plain.values()
