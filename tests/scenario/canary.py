"""A writer that proves itself: every acknowledged majority write must be there at the end."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import pymongo
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

PAUSE_SECONDS = 0.02


class Canary:
    """Inserts 1, 2, 3, ... with w: majority in a thread; context manager."""

    def __init__(self, uri: str, ca_file: Path) -> None:
        self._mongo = pymongo.MongoClient[Any](
            uri, tlsCAFile=str(ca_file), serverSelectionTimeoutMS=30_000, retryWrites=False
        )
        self.acknowledged: list[int] = []
        self.unknown: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def _write(self) -> None:
        majority = WriteConcern("majority", wtimeout=30_000)
        numbers = self._mongo["canary"].get_collection("numbers", write_concern=majority)
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                numbers.insert_one({"_id": number})
                self.acknowledged.append(number)
            except DuplicateKeyError:
                self.acknowledged.append(number)
            except PyMongoError:
                self.unknown.append(number)  # it may or may not be there: neither lost nor promised
            self._stop.wait(PAUSE_SECONDS)

    def __enter__(self) -> "Canary":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)

    def lost(self) -> list[int]:
        """Acknowledged writes that a majority read does not find."""
        found = self._mongo["canary"].get_collection("numbers", read_concern=ReadConcern("majority"))
        there = {document["_id"] for document in found.find({})}
        return [number for number in self.acknowledged if number not in there]
