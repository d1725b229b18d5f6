"""The files that bags are kept in: MCAP, sqlite3 and ROS 1. Raw messages, front to back, as far as a damaged file goes."""

from __future__ import annotations

import sqlite3
import struct
import sys
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame
from rosbags import rosbag1
from rosbags.rosbag1.reader import Header, RecordType, decompressors, normalize, read_uint32
from rosbags.rosbag2 import Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MCAP_MAGIC = b"\x89MCAP0\r\n"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PIECE_BYTES = 4096
"""Damaged data is decompressed in such pieces."""
GIVE_UP_ROWS = 10_000
"""So many rows in a row that cannot be read are the end of a damaged database."""


class Damaged(Exception):
    """A file that holds nothing that could be read; ``str()`` says why."""


class Channel(NamedTuple):
    """A topic, its type as pkg/msg/Name, and whether its messages are serialised as in ROS 1."""

    topic: str
    type: str
    ros1: bool = False


class Raw(NamedTuple):
    """A message, when it was recorded (ns), and its bytes."""

    channel: Channel
    log_ns: int
    data: bytes


@dataclass(eq=False)
class Storage:
    """One file of a bag.

    counts: messages by channel. start_ns, end_ns: first and last time of recording. damage: what is wrong with the file,
    in words, '' as far as is known; reading may find more. read: its messages on the channels given, in order of
    recording if the file is whole.
    """

    path: Path
    counts: Counter[Channel]
    start_ns: int
    end_ns: int
    read: Callable[[Collection[Channel], int | None], Iterator[Raw]]
    damage: str = ""

    def messages(self, channels: Collection[Channel], stop_ns: int | None = None) -> Iterator[Raw]:
        """Messages on ``channels`` recorded before ``stop_ns``; a file that breaks off ends there, see ``damage``."""
        reader = self.read(channels, stop_ns)
        while True:
            try:
                raw = next(reader)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 parsers of damaged files raise anything
                self.damage = self.damage or words(error)
                return
            yield raw


def open_storage(path: Path) -> Storage:
    """The file of a bag, by what is in it. Raises Damaged when no message in it can be read."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(MCAP_MAGIC):
        return _whole_or_scanned(path, _mcap, _scan_mcap)
    if start.startswith(b"SQLite format 3\0"):
        return _whole_or_scanned(path, _sqlite, _scan_sqlite)
    if start.startswith(b"#ROSBAG V"):
        return _whole_or_scanned(path, _ros1, _scan_ros1)
    raise Damaged("it is empty" if not start else "it is neither MCAP nor sqlite3 nor a bag of ROS 1")


def type_name(name: str) -> str:
    """pkg/msg/Name, also of pkg/Name, as ROS 1 and some converters write it, and of tf's old message."""
    parts = name.split("/")
    full = f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
    return "tf2_msgs/msg/TFMessage" if full == "tf/msg/tfMessage" else full


def words(error: Exception) -> str:
    """An error of a parser, for people."""
    if isinstance(error, Damaged):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _whole_or_scanned(
    path: Path, whole: Callable[[Path], Storage], scan: Callable[[Path], Iterator[Raw | str]]
) -> Storage:
    """The file by its own index, and where that is damaged by reading through it once."""
    try:
        return whole(path)
    except Exception as error:  # noqa: BLE001 parsers of damaged files raise anything
        damage = words(error)
    storage = Storage(path, Counter(), 2**63 - 1, 0, lambda channels, stop_ns: iter(()), damage)

    def read(channels: Collection[Channel], stop_ns: int | None) -> Iterator[Raw]:
        for found in scan(path):
            if isinstance(found, str):
                storage.damage = found
            elif found.channel in channels and (stop_ns is None or found.log_ns < stop_ns):
                yield found

    try:
        for found in scan(path):
            if isinstance(found, Raw):
                storage.counts[found.channel] += 1
                storage.start_ns = min(storage.start_ns, found.log_ns)
                storage.end_ns = max(storage.end_ns, found.log_ns)
            else:
                storage.damage = found
    except Exception as error:  # as above
        raise Damaged(damage) from error
    if not storage.counts:
        raise Damaged(damage)
    storage.read = read
    return storage


# ---- MCAP


def _mcap(path: Path) -> Storage:
    with Reader(path) as reader:
        channels = {c.id: Channel(c.topic, type_name(c.msgtype)) for c in reader.connections}
        counts = Counter({channels[c.id]: 0 for c in reader.connections})
        for c in reader.connections:
            counts[channels[c.id]] += c.msgcount
        start_ns, end_ns = reader.start_time, reader.end_time - 1

    def read(wanted: Collection[Channel], stop_ns: int | None) -> Iterator[Raw]:
        with Reader(path) as reader:
            connections = [c for c in reader.connections if channels.get(c.id) in wanted]
            for c, log_ns, data in reader.messages(connections, stop=stop_ns) if connections else ():
                yield Raw(channels[c.id], log_ns, data)

    return Storage(path, counts, start_ns, end_ns, read)


def _scan_mcap(path: Path) -> Iterator[Raw | str]:
    """Messages of an MCAP file front to back, and in words why it is left where it cannot be read any further."""
    schemas: dict[int, str] = {}
    channels: dict[int, Channel] = {}

    def inside(records: BinaryIO) -> Iterator[Raw]:
        while len(head := records.read(9)) == 9:
            op, length = struct.unpack("<BQ", head)
            if op not in (0x03, 0x04, 0x05):
                records.seek(length, 1)
                continue
            body = records.read(length)
            if len(body) < length:
                return
            if op == 0x03:
                schemas[struct.unpack_from("<H", body)[0]] = type_name(_text(body, 2)[0])
            elif op == 0x04:
                channel, schema = struct.unpack_from("<HH", body)
                topic, at = _text(body, 4)
                encoding, _ = _text(body, at)
                if encoding in ("cdr", "ros1"):
                    channels[channel] = Channel(topic, schemas.get(schema, ""), encoding == "ros1")
            else:
                channel, _, log_ns = struct.unpack_from("<HIQ", body)
                if channel in channels:
                    yield Raw(channels[channel], log_ns, body[22:])

    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(len(MCAP_MAGIC))
        while True:
            at = file.tell()
            head = file.read(9)
            op, length = struct.unpack("<BQ", head) if len(head) == 9 else (0, 0)
            if op in (0x02, 0x0F):  # footer, or the end of the data: what follows is the summary
                return
            if len(head) < 9 or not 0x01 <= op <= 0x0F:
                yield f"no record begins at byte {at} of {size}"
                return
            body = file.read(min(length, size - at))
            try:
                if op == 0x06:
                    compression, start = _text(body, 28)
                    plain, fault = _decompressed(compression, body[start + 8 :])
                    checksum = struct.unpack_from("<I", body, 24)[0]
                    if checksum and not fault and len(body) == length and crc32(plain) != checksum:
                        raise Damaged("its checksum is wrong")
                    yield from inside(BytesIO(plain))
                    if fault is not None:
                        raise fault
                else:
                    yield from inside(BytesIO(head + body))
            except Exception as error:  # noqa: BLE001 the next chunk begins where this one says that it ends
                yield f"a chunk at byte {at} of {size} is damaged ({words(error)})"
            if len(body) < length:
                yield f"it breaks off at byte {size}, in a record that begins at {at}"
                return


def _text(body: bytes, at: int) -> tuple[str, int]:
    """A string of MCAP, and where it ends."""
    end = at + 4 + struct.unpack_from("<I", body, at)[0]
    return body[at + 4 : end].decode(), end


def _decompressed(compression: str, data: bytes) -> tuple[bytes, Exception | None]:
    """Of data that was cut off or damaged, what comes before that, and what then goes wrong."""
    if compression not in ("zstd", "lz4"):
        return data, None
    decompressor = zstd.ZstdDecompressor() if compression == "zstd" else lz4.frame.LZ4FrameDecompressor()
    plain = bytearray()
    for at in range(0, len(data), PIECE_BYTES):
        if decompressor.eof:
            break
        try:
            plain += decompressor.decompress(data[at : at + PIECE_BYTES])
        except Exception as error:  # noqa: BLE001 as in _scan_mcap
            return bytes(plain), error
    return bytes(plain), None


# ---- sqlite3


def sqlite_pages(path: Path) -> tuple[int, int]:
    """Bytes of a page of a database, and how many pages it says that it has."""
    with path.open("rb") as file:
        head = file.read(100).ljust(100, b"\0")
    page, pages = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0]
    return (65536 if page == 1 else max(page, 512)), pages


def _connect(path: Path, damaged: bool = False) -> closing[sqlite3.Connection]:
    """The database, never written to. damaged: where pages are missing it fails when they are needed, not at once."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    if damaged:
        database.execute("PRAGMA writable_schema=ON")
    return closing(database)


def _sqlite_channels(database: sqlite3.Connection) -> dict[int, Channel]:
    return {
        row: Channel(str(name), type_name(str(kind)))
        for row, name, kind, form in database.execute("SELECT id, name, type, serialization_format FROM topics")
        if form == "cdr"
    }


def _sqlite(path: Path) -> Storage:
    page, pages = sqlite_pages(path)
    if path.stat().st_size < pages * page:
        raise Damaged(f"it breaks off, {pages - path.stat().st_size // page} of {pages} pages are missing")
    with _connect(path) as database:
        channels = _sqlite_channels(database)
        counts: Counter[Channel] = Counter(dict.fromkeys(channels.values(), 0))
        summary = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY topic_id"
        found = [row for row in database.execute(summary) if row[0] in channels]
    for row, count, _, _ in found:
        counts[channels[row]] += count
    start_ns, end_ns = min((row[2] for row in found), default=2**63 - 1), max((row[3] for row in found), default=0)

    def read(wanted: Collection[Channel], stop_ns: int | None) -> Iterator[Raw]:
        rows = [row for row, channel in channels.items() if channel in wanted]
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({','.join('?' * len(rows))})"
        query += " ORDER BY timestamp" if stop_ns is None else " AND timestamp < ? ORDER BY timestamp"
        with _connect(path) as database:
            for row, log_ns, data in database.execute(query, rows if stop_ns is None else [*rows, stop_ns]):
                yield Raw(channels[row], log_ns, _plain(data))

    return Storage(path, counts, start_ns, end_ns, read)


def _scan_sqlite(path: Path) -> Iterator[Raw | str]:
    """Messages of a damaged database in order of their rows, past the ones that cannot be read."""
    with _connect(path, damaged=True) as database:
        channels = _sqlite_channels(database)
        page = int(database.execute("PRAGMA page_size").fetchone()[0])
        size, seen = path.stat().st_size, 0
        last, missed, lost = 0, 0, 0
        while missed < GIVE_UP_ROWS:
            try:
                query = "SELECT rowid, topic_id, timestamp, data FROM messages WHERE rowid > ? ORDER BY rowid"
                for row, topic, log_ns, data in database.execute(query, (last,)):
                    last, lost, missed = row, lost + missed, 0
                    seen += len(data)
                    if seen + len(data) + (1 << 16) > size and _ends_in_a_missing_page(data, page):
                        lost += 1
                    elif topic in channels:
                        yield Raw(channels[topic], log_ns, _plain(data))
                break
            except sqlite3.DatabaseError:
                last, missed = last + 1, missed + 1
        if missed or lost:
            yield f"its pages are incomplete after message {last - missed}" + (f", {lost} before are lost" if lost else "")


def _ends_in_a_missing_page(data: bytes, page: int) -> bool:
    """Whether the end of a message may be a page beyond the file's end, which SQLite takes for zeros.

    By SQLite's file format a row that exceeds a page keeps its end in overflow pages of ``page`` - 4 bytes; the row's
    own header and the other columns take 5 to 30 bytes.
    """
    least, whole = (page - 12) * 32 // 255 - 23, page - 4
    for other in range(5, 31):
        payload = len(data) + other
        local = least + (payload - least) % whole
        if payload > page - 35:
            end = (payload - (local if local <= page - 35 else least)) % whole or whole
            if not any(data[-end:]):
                return True
    return False


def _plain(data: bytes) -> bytes:
    """A message as it was before rosbag2 compressed it; uncompressed ones begin with 0, as all of CDR."""
    return zstd.decompress(data) if data[:4] == ZSTD_MAGIC else data


# ---- ROS 1


def _ros1(path: Path) -> Storage:
    with rosbag1.Reader(path) as reader:
        channels = {c.id: Channel(c.topic, type_name(c.msgtype), True) for c in reader.connections}
        counts: Counter[Channel] = Counter()
        for c in reader.connections:
            counts[channels[c.id]] += c.msgcount
        start_ns, end_ns = reader.start_time, reader.end_time - 1

    def read(wanted: Collection[Channel], stop_ns: int | None) -> Iterator[Raw]:
        with rosbag1.Reader(path) as reader:
            connections = [c for c in reader.connections if channels[c.id] in wanted]
            for c, log_ns, data in reader.messages(connections, stop=stop_ns) if connections else ():
                yield Raw(channels[c.id], log_ns, data)

    return Storage(path, counts, start_ns, end_ns, read)


def _scan_ros1(path: Path) -> Iterator[Raw | str]:
    """Messages of a bag that its recorder did not finish (.bag.active), or that was cut off, front to back."""
    channels: dict[int, Channel] = {}
    size = path.stat().st_size

    def records(source: BinaryIO, end: int) -> Iterator[Raw | str]:
        while (at := source.tell()) < end:
            header = Header.read(source)
            length = read_uint32(source)
            body = source.read(length)
            op = header.get_uint8("op")
            if op == RecordType.CHUNK:
                compression = header.get_string("compression")
                try:
                    plain = body if compression == "none" else decompressors[compression](body)
                    yield from records(BytesIO(plain), len(plain))
                except Exception as error:  # noqa: BLE001 as in _scan_mcap
                    yield f"a chunk at byte {at} of {size} is damaged ({words(error)})"
            elif op == RecordType.CONNECTION:
                described = Header.read(BytesIO(struct.pack("<I", len(body)) + body))
                kind = type_name(described.get_string("type"))
                channels[header.get_uint32("conn")] = Channel(normalize(header.get_string("topic")), kind, True)
            elif op == RecordType.MSGDATA and len(body) == length and header.get_uint32("conn") in channels:
                yield Raw(channels[header.get_uint32("conn")], header.get_time("time"), body)
            if len(body) < length:
                raise Damaged(f"it breaks off at byte {size}")

    with path.open("rb") as file:
        file.readline()
        try:
            yield from records(file, size)
        except Exception as error:  # noqa: BLE001 what is cut off looks like anything
            yield words(error)
