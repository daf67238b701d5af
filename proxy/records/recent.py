"""The notable samples of late, so many at most; what an operator has labelled stays longest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from proxy.records.record import Label, Record


class Recent:
    """Records by id. When full, the oldest without a label goes.

    Args:
        capacity: most records kept. Labelled ones take up half of that at most: then the oldest
            of them goes, so that new ones always find room.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Dictionaries keep the order in which keys came.
        self._plain: dict[str, Record] = {}
        self._labelled: dict[str, Record] = {}

    def __len__(self) -> int:
        return len(self._plain) + len(self._labelled)

    def add(self, record: Record) -> None:
        """Keep a record; what was noted on one of the same id stays noted."""
        old = self.find(record.id)
        if old is not None:
            noted = ("label", "shadow", "thumbnail")
            kept = {name: getattr(record, name) or getattr(old, name) for name in noted}
            record = replace(record, **kept)
        (self._labelled if record.id in self._labelled else self._plain)[record.id] = record
        if len(self) > self._capacity:
            del self._plain[next(iter(self._plain))]

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
        record = self._plain.pop(id_, None) or self._labelled.pop(id_, None)
        if record is None:
            return None
        record = replace(record, label=label)
        (self._labelled if label else self._plain)[id_] = record
        if len(self._labelled) > max(1, self._capacity // 2):
            del self._labelled[next(iter(self._labelled))]
        return record

    def _all(self) -> Iterator[Record]:
        yield from self._labelled.values()
        yield from self._plain.values()
