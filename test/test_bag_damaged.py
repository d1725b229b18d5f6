"""Bags that are not whole, or not as a recorder writes them: read as far as they go, never in silence."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from small_recording import SmallSource, assert_same_frames

from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.sources.bag import ROS1, BagSource
from spatial_mllm_ros.sources.bag_files import BagFiles
from spatial_mllm_ros.sources.bag_writer import BagFormat, write_bag
from spatial_mllm_ros.sources.source import SourceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROS2 = get_typestore(Stores.ROS2_JAZZY)
COUNT = 12


@pytest.fixture(params=["mcap", "sqlite3"])
def bag(tmp_path: Path, request) -> Path:
    """A bag of twelve raw frames."""
    write_bag(SmallSource(COUNT), tmp_path / "bag", BagFormat(request.param, compressed=False))
    return tmp_path / "bag"


@pytest.fixture
def mcap(tmp_path: Path) -> Path:
    write_bag(SmallSource(COUNT), tmp_path / "bag", BagFormat("mcap", compressed=False))
    return tmp_path / "bag"


@pytest.fixture
def db3(tmp_path: Path) -> Path:
    write_bag(SmallSource(COUNT), tmp_path / "bag", BagFormat("sqlite3", compressed=False))
    return tmp_path / "bag"


def storage_file(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3"))


def whole(source: BagSource) -> bool:
    return assert_same_frames(SmallSource(COUNT), source) == COUNT


def read(bag: Path) -> tuple[list[Frame], str]:
    """The frames that come, and what is said about those that do not."""
    frames: list[Frame] = []
    try:
        source = BagSource(bag)
        frames.extend(source.frames())
    except SourceError as error:
        return frames, str(error)
    told = [str(doubt) for doubt in source.doubts]
    return frames, " ".join([*told, *source.info.chosen, *source.refused, *source.remarks])


def start_of_the_original(frames: list[Frame]) -> bool:
    """What was recovered is what was recorded; the last frame may lack what was cut off."""
    originals = {frame.stamp_ns: frame for frame in SmallSource(COUNT).frames()}
    return all((f.rgb() == originals[f.stamp_ns].rgb()).all() for f in frames)


# ---- Cut off


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.75, 0.9, 0.999])
def test_a_bag_cut_off_gives_what_it_has_and_says_what_to_do(bag, keep):
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    frames, told = read(bag)
    assert start_of_the_original(frames)
    assert "ros2 bag reindex" in told
    assert keep < 0.3 or len(frames) >= int(keep * COUNT) - 2, "nothing that is there is given up"
    assert keep > 0.75 or len(frames) < COUNT


@pytest.mark.parametrize("zstd_chunks", [False, True])
def test_an_mcap_cut_by_a_hundred_bytes_loses_nothing_but_its_index(tmp_path, zstd_chunks):
    write_bag(SmallSource(COUNT), tmp_path / "bag", BagFormat("mcap", compressed=False, zstd=zstd_chunks))
    file = storage_file(tmp_path / "bag")
    file.write_bytes(file.read_bytes()[:-100])
    source = BagSource(tmp_path / "bag")
    assert whole(source)
    assert source.doubts[0].kind == "damaged_bag"
    assert "messages were recovered" in source.doubts[0].text
    assert source.info.frames == COUNT, "it is known from the start how many come"
    assert any("is damaged" in line for line in source.info.chosen)


def test_an_mcap_may_be_cut_anywhere(mcap):
    """At no byte is there a traceback, and never do fewer frames come from more bytes."""
    file = storage_file(mcap)
    data = file.read_bytes()
    counts = []
    for size in range(0, len(data), len(data) // 40):
        file.write_bytes(data[:size])
        frames, told = read(mcap)
        assert told, f"cut to {size} of {len(data)} bytes"
        counts.append(len(frames))
    assert counts == sorted(counts)
    assert counts[-1] == COUNT


def test_bytes_flipped_in_the_middle_are_told_or_counted(bag):
    file = storage_file(bag)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    file.write_bytes(bytes(data))
    frames, told = read(bag)
    assert len(frames) <= COUNT
    assert len(frames) == COUNT or told


def test_a_damaged_chunk_does_not_take_the_rest_with_it(tmp_path):
    """Chunks say where they end, so that those behind a damaged one are read, also where there is no index."""
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/text", "std_msgs/msg/String", typestore=ROS2)
        for number in range(6):
            text = np.random.default_rng(number).bytes(1_000_000).hex()
            message = ROS2.types["std_msgs/msg/String"](text)
            writer.write(connection, number, ROS2.serialize_cdr(message, "std_msgs/msg/String"))
    file = storage_file(tmp_path / "bag")
    data = file.read_bytes()
    at = data.index(b"zstd", len(data) // 2) + 12  # where a chunk's records begin
    file.write_bytes((data[:at] + bytes(2000) + data[at + 2000 :])[:-100])
    files = BagFiles(tmp_path / "bag")
    assert 3 <= sum(files.counts.values()) <= 5
    assert [raw.log_ns for raw in files.messages(list(files.counts))][-1] == 5
    assert files.remarks


@pytest.mark.parametrize(
    "content", [b"", b"hello" * 100, b"\x89MCAP0\r\n", b"SQLite format 3\0" * 10, b"#ROSBAG V2.0\n"]
)
def test_a_file_that_is_no_bag(tmp_path, content):
    for name in ("file.mcap", "file.db3", "file.bag"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=r"cannot be opened: file\."):
            BagSource(tmp_path / name)


def test_a_database_of_something_else(tmp_path):
    sqlite3.connect(tmp_path / "other.db3").execute("CREATE TABLE recipes (name)").connection.commit()
    with pytest.raises(SourceError, match="cannot be opened"):
        BagSource(tmp_path / "other.db3")
    with pytest.raises(SourceError, match="does not exist"):
        BagSource(tmp_path / "nothing.mcap")


# ---- Crashed recorders


def crashed(bag: Path) -> Path:
    """As a killed recorder leaves it: half of the messages in the database, the others in the -wal beside it."""
    whole_file = storage_file(bag)
    rows = sqlite3.connect(whole_file).execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    database = sqlite3.connect(whole_file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("DELETE FROM messages WHERE id > ?", (len(rows) // 2,))
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for topic, stamp, data in rows[len(rows) // 2 :]:
        database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", (topic, stamp, data))
    database.commit()
    left = bag.parent / "left"
    left.mkdir()
    for path in (whole_file, whole_file.with_name(whole_file.name + "-wal")):
        shutil.copy(path, left / path.name)
    database.close()
    return left


def test_what_a_crashed_recorder_left_beside_the_database_is_read_and_nothing_is_changed(db3):
    left = crashed(db3)
    before = {p.name: p.read_bytes() for p in left.iterdir()}
    assert len(before) == 2
    left.chmod(stat.S_IRUSR | stat.S_IXUSR)  # a folder that cannot be written to
    try:
        source = BagSource(left)
        assert whole(source)
        assert whole(source), "a second time"
        assert "-wal beside it was read, too" in source.doubts[0].text
    finally:
        left.chmod(stat.S_IRWXU)
    assert {p.name: p.read_bytes() for p in left.iterdir()} == before


def test_without_the_wal_the_half_that_is_left_is_told_by_metadata(db3):
    left = crashed(db3)
    next(left.glob("*-wal")).unlink()
    shutil.copy(db3 / "metadata.yaml", left / "metadata.yaml")
    frames, told = read(left)
    assert 0 < len(frames) < COUNT
    assert "messages, but" in told


# ---- metadata.yaml


@pytest.mark.parametrize(
    "content", ["", ": : :", "[1, 2]", *("rosbag2_bagfile_information: " + x for x in ("3", "{v: 5}"))]
)
def test_a_broken_metadata_beside_a_whole_file(bag, content):
    (bag / "metadata.yaml").write_text(content)
    source = open_source(str(bag))
    assert whole(source)
    assert "metadata.yaml is empty or broken" in source.doubts[0].text


def test_without_metadata_the_only_file_is_read(bag):
    (bag / "metadata.yaml").unlink()
    for path in (bag, storage_file(bag)):
        source = open_source(str(path))
        assert whole(source)
        assert not source.doubts


def test_a_folder_of_several_bags_is_not_one(bag):
    (bag / "metadata.yaml").unlink()
    shutil.copy(storage_file(bag), bag / f"second{storage_file(bag).suffix}")
    with pytest.raises(SourceError, match=r"holds several bags.*ros2 bag reindex"):
        BagSource(bag)


@pytest.mark.parametrize("metadata", ["whole", "lost", "one file missing"])
def test_a_bag_split_into_several_files(tmp_path, metadata):
    """Of eleven files, so that _10 comes after _2."""
    folder = tmp_path / "split"
    folder.mkdir()
    for number, at in enumerate(range(0, 22, 2)):
        source = SmallSource(2, start_ns=SmallSource().start_ns + at * 100_000_000)
        write_bag(source, tmp_path / "part", BagFormat("sqlite3", compressed=False), overwrite=True)
        shutil.copy(storage_file(tmp_path / "part"), folder / f"split_{number}.db3")
    names = [f"split_{number}.db3" for number in range(11)]
    if metadata != "lost":
        listed = [f"  - {name}\n" for name in names]
        text = "rosbag2_bagfile_information:\n  version: 5\n  message_count: 0\n  relative_file_paths:\n" + "".join(
            listed
        )
        (folder / "metadata.yaml").write_text(text)
    if metadata == "one file missing":
        (folder / "split_5.db3").unlink()
    source = BagSource(folder)
    stamps = [frame.stamp_ns for frame in source.frames()]
    assert stamps == sorted(stamps)
    assert len(stamps) == (20 if metadata == "one file missing" else 22)
    assert ("damaged_bag" in {doubt.kind for doubt in source.doubts}) == (metadata == "one file missing")


# ---- Compression, names of types


def test_files_compressed_with_zstd_without_metadata(bag):
    (bag / "metadata.yaml").unlink()
    file = storage_file(bag)
    data = file.read_bytes()
    file.unlink()
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstd.compress(data))
    for path in (bag, packed):
        assert whole(open_source(str(path)))
    packed.write_bytes(zstd.compress(data)[:-300])
    frames, told = read(bag)
    assert start_of_the_original(frames)
    assert "zstd is damaged" in told


def test_messages_compressed_with_zstd_without_metadata(tmp_path):
    write_bag(SmallSource(COUNT), tmp_path / "bag", BagFormat("sqlite3", compressed=False, zstd=True))
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert whole(BagSource(tmp_path / "bag"))


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_types_without_msg_in_their_name(tmp_path, storage):
    """sensor_msgs/Image, as bags converted from ROS 1 have them, and a type that nobody knows."""
    original = tmp_path / "original"
    write_bag(SmallSource(COUNT), original, BagFormat("mcap", compressed=False))
    with Writer(tmp_path / "bag", version=8, storage_plugin=storage) as writer:
        connections = {}
        files = BagFiles(original)
        for channel, log_ns, data in files.messages(list(files.counts)):
            if channel not in connections:
                name = channel.type.replace("/msg/", "/")
                connections[channel] = writer.add_connection(
                    channel.topic, name, msgdef="?", rihs01="RIHS01_" + "0" * 64
                )
            writer.write(connections[channel], log_ns, data)
        odd = writer.add_connection("/odd", "acme/Odd", msgdef="?", rihs01="RIHS01_" + "0" * 64)
        writer.write(odd, 0, b"\0\1\0\0?")
    assert whole(BagSource(tmp_path / "bag"))


# ---- ROS 1


def write_ros1(path: Path, compression: Ros1Writer.CompressionFormat | None = None) -> None:
    """The twelve frames as a bag of ROS 1, its tf as the old tf/tfMessage."""
    original = path.parent / "original"
    if not original.exists():
        write_bag(SmallSource(COUNT), original, BagFormat("mcap", compressed=False))
    writer = Ros1Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        files = BagFiles(original)
        connections = {}
        for channel, log_ns, data in files.messages(list(files.counts)):
            if channel not in connections:
                connections[channel] = writer.add_connection(channel.topic, channel.type, typestore=ROS1)
            message = ROS2.deserialize_cdr(data, channel.type)
            writer.write(connections[channel], log_ns, ROS1.serialize_ros1(as_ros1(message), channel.type))


def as_ros1(message: object) -> object:
    """The same message with the fields of ROS 1."""
    name = message.__msgtype__
    fields = ROS1.types[name].__dataclass_fields__
    values = {}
    for field in fields:
        if field == "seq":
            values[field] = 0
            continue
        value = getattr(message, field) if hasattr(message, field) else getattr(message, field.lower())
        if hasattr(value, "__msgtype__"):
            value = as_ros1(value)
        elif isinstance(value, list):
            value = [as_ros1(v) if hasattr(v, "__msgtype__") else v for v in value]
        values[field] = value
    return ROS1.types[name](**{f: values[f] for f in fields if f in values})


@pytest.mark.parametrize("compression", [None, *Ros1Writer.CompressionFormat])
def test_a_bag_of_ros_1(tmp_path, compression):
    write_ros1(tmp_path / "robot.bag", compression)
    for path in (tmp_path / "robot.bag",):
        source = open_source(str(path))
        assert whole(source)
        assert source.info.frames == COUNT
        assert not source.doubts


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_bag_of_ros_1_cut_off(tmp_path, keep):
    file = tmp_path / "robot.bag.active"
    write_ros1(tmp_path / "robot.bag")
    data = (tmp_path / "robot.bag").read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    frames, told = read(file)
    assert len(frames) >= int(keep * COUNT) - 2
    assert start_of_the_original(frames)
    assert "ros2 bag reindex" in told


def test_a_bag_of_ros_1_without_index(tmp_path):
    """index_pos is 0 until the recorder closes the bag."""
    write_ros1(tmp_path / "robot.bag")
    data = (tmp_path / "robot.bag").read_bytes()
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (tmp_path / "robot.bag").write_bytes(data[:at] + bytes(8) + data[at + 8 :])
    source = BagSource(tmp_path / "robot.bag")
    assert whole(source)
    assert "not indexed" in source.doubts[0].text


def test_every_message_of_a_damaged_bag_is_counted_once(bag):
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[:-100])
    files = BagFiles(bag)
    read_back = [raw.channel for raw in files.messages(list(files.counts))]
    assert len(read_back) == sum(files.counts.values())
    assert np.unique([c.topic for c in read_back]).size == len(files.counts)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes changed, cut, or with some taken out, put in or zeroed."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        at, kind = rng.randrange(len(changed) or 1), rng.randrange(5)
        if kind == 0:
            changed[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del changed[at + rng.randrange(len(changed) or 1) :]
        elif kind == 2:
            del changed[at : at + rng.randrange(1, 100)]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 100))
        else:
            changed[at : at + 50] = bytes(len(changed[at : at + 50]))
    return bytes(changed)


def test_mutated_bags_give_clear_errors_or_say_what_they_lack(tmp_path):
    """Of 60 bags damaged at random none ends in a traceback, and none gives fewer frames without a word."""
    rng = random.Random(7)
    for storage in ("mcap", "sqlite3"):
        original = tmp_path / storage
        write_bag(SmallSource(6), original, BagFormat(storage, zstd=storage == "mcap"))
        for number in range(30):
            damaged = tmp_path / f"{storage}{number}"
            shutil.copytree(original, damaged)
            file = rng.choice([*damaged.iterdir(), storage_file(damaged), storage_file(damaged)])
            file.write_bytes(mutated(file.read_bytes(), rng))
            frames, told = read(damaged)
            assert len(frames) == 6 or told, f"{storage} {number}: {file.name}"
            shutil.rmtree(damaged)
