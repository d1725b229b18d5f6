"""A bag as it lies on the disk: its files in order, also where metadata.yaml is missing or wrong, or its recorder crashed."""

from __future__ import annotations

import heapq
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from operator import attrgetter
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from spatial_mllm_ros.sources.bag_storage import Channel, Damaged, Raw, Storage, open_storage, sqlite_pages, words, zstd
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import natural_key

BAG_SUFFIXES = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd", ".bag.active")
METADATA = "metadata.yaml"
WHAT_TO_DO = "copy the bag again, or repair it with `ros2 bag reindex`; what its recorder did not write is lost"
LEFT_BY_A_CRASH = ("-wal", "-journal")
"""What lies beside a database that its writer did not close, and belongs to it."""


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a file of one, or a folder that holds some."""
    if path.is_dir():
        return (path / METADATA).exists() or any(is_bag(p) for p in path.iterdir() if p.is_file())
    return path.name.endswith(BAG_SUFFIXES)


class BagFiles:
    """The messages of a bag: a folder, or one of its files. Nothing beside or in it is ever changed.

    counts: messages by channel. start_ns, end_ns: first and last time of recording. custom: what the writer added to
    metadata.yaml. remarks: what was made of a bag that is not whole, for people. Raises SourceError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.custom: Mapping[str, Any] = {}
        self._remarks: list[str] = []
        self._copies: TemporaryDirectory[str] | None = None
        self._storages: list[Storage] = []
        self._announced = 0
        for file in self._files(path):
            try:
                self._storages.append(open_storage(self._settled(file)))
            except (Damaged, zstd.ZstdError) as error:
                self._remarks.append(f"{file.name} cannot be read: {error}")
            except OSError as error:
                self._remarks.append(f"{file.name} cannot be read: {error.strerror or error}")
        if not self._storages:
            raise SourceError(f"{path} cannot be opened: {'; '.join(self._remarks) or 'no files'}; {WHAT_TO_DO}")
        self._storages.sort(key=attrgetter("start_ns"))
        self.counts: Counter[Channel] = sum((s.counts for s in self._storages), Counter())
        self.start_ns = min(s.start_ns for s in self._storages)
        self.end_ns = max(self.start_ns, *(s.end_ns for s in self._storages))
        self._recovered = [s for s in self._storages if s.damage]
        there = sum(self.counts.values())
        if there < self._announced and not self.remarks:
            self._remarks.append(f"{METADATA} counts {self._announced} messages, but {there} are there")

    @property
    def remarks(self) -> list[str]:
        """What is not whole, in words; reading may find more."""
        found = list(self._remarks)
        for storage in self._storages:
            if storage.damage:
                number = sum(storage.counts.values())
                what = f"{number} messages were recovered" if storage in self._recovered else "what comes after is lost"
                found.append(f"{storage.path.name} is damaged: {storage.damage}; {what}")
        return found

    def messages(self, channels: Collection[Channel], stop_ns: int | None = None) -> Iterator[Raw]:
        """Messages on ``channels`` in order of recording, those recorded before ``stop_ns`` if that is given."""
        if channels:
            streams = [storage.messages(channels, stop_ns) for storage in self._storages]
            yield from heapq.merge(*streams, key=attrgetter("log_ns"))

    def _files(self, path: Path) -> list[Path]:
        """Its files. Those that metadata.yaml lists, else all that are parts of one bag."""
        if not path.exists():
            raise SourceError(f"{path} does not exist")
        if not path.is_dir():
            return [path]
        there = [p for p in path.iterdir() if p.is_file() and p.name.endswith(BAG_SUFFIXES)]
        there.sort(key=lambda p: natural_key(p.name))  # parts are numbered
        metadata = path / METADATA
        listed: list[str] = []
        if metadata.exists():
            try:
                content = yaml.safe_load(metadata.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
                listed = [PurePath(name).name for name in content["relative_file_paths"]]
                self.custom = content.get("custom_data") or {}
                self._announced = int(content.get("message_count", 0))
            except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
                self._remarks.append(f"{METADATA} is empty or broken ({words(error)}): the files beside it were read")
        missing = [name for name in listed if not (path / name).exists()]
        if missing:
            self._remarks.append(f"{METADATA} lists {', '.join(missing)}: not there")
        found = [path / name for name in listed if name not in missing]
        if found:
            return found
        if len({re.sub(r"_\d+$", "", p.name.split(".")[0]) for p in there}) > 1:
            names = ", ".join(p.name for p in there)
            raise SourceError(
                f"{path} holds several bags, {names}: name one of them; if they are parts of one, `ros2 bag reindex "
                f"{path}` makes the {METADATA} that says so"
            )
        return there

    def _settled(self, file: Path) -> Path:
        """The file as it can be read: out of its compression, with what a crashed recorder left beside it."""
        beside = [b for s in LEFT_BY_A_CRASH if (b := file.with_name(file.name + s)).exists() and b.stat().st_size]
        cut = file.suffix == ".db3" and file.stat().st_size % sqlite_pages(file)[0]
        if not beside and not cut and file.suffix != ".zstd":
            return file
        if self._copies is None:
            self._copies = TemporaryDirectory(prefix="spatial_mllm_bag_")
        copy = Path(self._copies.name, file.name.removesuffix(".zstd"))
        if file.suffix == ".zstd":
            with file.open("rb") as packed, copy.open("wb") as plain:
                try:
                    with zstd.open(packed, "rb") as unpacked:
                        shutil.copyfileobj(unpacked, plain)
                except (EOFError, zstd.ZstdError) as error:
                    self._remarks.append(f"{file.name} is damaged: {words(error)}; what came before that was read")
            return copy
        shutil.copy(file, copy)
        if cut:  # in the middle of a page, which SQLite would fill up with zeros
            os.truncate(copy, copy.stat().st_size - cut)
            return copy
        for other in beside:
            shutil.copy(other, copy.parent)
        try:
            with closing(sqlite3.connect(copy)) as database:  # reads, and ends, what its writer left open
                database.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.DatabaseError as error:
            self._remarks.append(f"{beside[0].name} cannot be joined with its database: {words(error)}")
            return file
        self._remarks.append(f"{file.name} was not closed by its recorder: {beside[0].name} beside it was read, too")
        return copy
