"""The MultiSPA engine: right answers, published formats, nothing half written.

MULTISPA_SAMPLES=200 recomputes so many answers a subtask instead of a few.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from multispa_truth import Truth

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.learning.multispa.camera import camera_samples
from spatial_mllm_ros.learning.multispa.engine import build, place_of, scene_names
from spatial_mllm_ros.learning.multispa.pairs import Pairs, chosen_pairs
from spatial_mllm_ros.learning.multispa.report import write_report
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.learning.multispa.subtasks import BY_NAME, SUBTASKS, WORDS, Kind
from spatial_mllm_ros.learning.multispa.wording import wordings
from spatial_mllm_ros.learning.objects import objects_of
from spatial_mllm_ros.learning.tracks import TapVidSource, tracks_of
from spatial_mllm_ros.scene.tracks import Tracks
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.writers import write_folder

pytest.importorskip("embreex")

SAMPLES = int(os.environ.get("MULTISPA_SAMPLES", "6"))
LARGE = SAMPLES > 50
SIZE = "frames=100,rate=2,size=320x240" if LARGE else "frames=48,rate=2,size=160x120"
WALK, STILL, HELD = (
    f"rendered:seed={seed},rooms=2,{SIZE}{more}"
    for seed, more in ((1, ",moving=4"), (2, ",moving=3,still=on"), (5, ""))
)
MORE = [f"rendered:seed={seed},rooms=1,{SIZE},moving=3" for seed in (3, 6, 8)] if LARGE else []
TINY = "rendered:seed=5,rooms=1,frames=24,rate=1,size=64x48"
SETTINGS = MultiSpaSettings(
    train=SAMPLES, evaluation=3, frames=70 if LARGE else 24, evaluation_share=0.2 if LARGE else 0.33
)


def quiet(what: str, done: int, total: int | None) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("multispa") / "questions"
    build([WALK, STILL, HELD, *MORE], target, SETTINGS, quiet, finish=write_report)
    return target


@pytest.fixture(scope="module")
def truths(folder: Path) -> dict[str, Truth]:
    scenes = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    return {name: Truth(scene["source"], folder / "images") for name, scene in scenes.items()}


def records(folder: Path, subtask: str) -> list[dict[str, Any]]:
    files = [folder / split / f"{subtask}.jsonl" for split in ("train", "eval")]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("subtask", [subtask.name for subtask in SUBTASKS])
def test_every_answer_is_what_frames_poses_and_depth_say(folder: Path, truths: dict[str, Truth], subtask: str) -> None:
    found = records(folder, subtask)
    assert found, f"no question of {subtask} was made"
    wrong = [f"{record['id']}: {said}" for record in found if (said := truths[record["scene"]].check(record))]
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong[:10])


def test_there_are_26_subtasks_of_five_tasks() -> None:
    assert Counter(subtask.task for subtask in SUBTASKS) == {
        "depth perception": 4, "visual correspondence": 2, "camera movement": 9, "object size": 3, "object movement": 8,
    }  # fmt: skip


def test_no_place_is_in_training_and_evaluation(folder: Path) -> None:
    scenes = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    assert Counter(scene["split"] for scene in scenes.values()) == {"train": 2, "eval": 1}
    for subtask in SUBTASKS:
        for record in records(folder, subtask.name):
            assert scenes[record["scene"]]["split"] == record["id"].split("-")[0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("rendered:seed=3", "rendered:frames=20,seed=3", True),
        ("rendered:seed=3", "rendered:seed=3,rooms=2", False),
        ("a/scene0012_00.sens", "b/scene0012_01.sens", True),
        ("a/scene0012_00.sens", "a/scene0013_00.sens", False),
        ("a/kitchen", "b/kitchen", False),
    ],
)
def test_scans_of_one_room_are_one_place(one: str, other: str, same: bool) -> None:
    assert (place_of(one) == place_of(other)) == same


def test_recordings_of_one_name_get_names_of_their_own() -> None:
    names = scene_names(["a/kitchen", "b/kitchen", "c/kitchen", "d/hall way"])
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]+", name) for name in names)


def test_records_have_the_published_fields(folder: Path) -> None:
    for subtask in SUBTASKS:
        for record in records(folder, subtask.name):
            views = len(record["image"])
            assert len(record["height_list"]) == len(record["width_list"]) == views
            assert all((folder / "images" / name).is_file() for name in record["image"])
            assert record["question_type"] == subtask.question_type
            training = record["id"].startswith("train")
            assert ("conversations" in record, "text" in record) == (training, not training)
            question = record["conversations"][0]["value"] if training else record["text"]
            assert question.count("<image>") == views
            assert not re.search(r"[{}]", question), question
    listed = json.loads((folder / "internvl.json").read_text(encoding="utf-8"))
    for entry in listed.values():
        assert len((folder / entry["annotation"]).read_text(encoding="utf-8").splitlines()) == entry["length"]


def test_the_report_shows_every_subtask_and_what_was_left_out(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(subtask.name in page for subtask in SUBTASKS)
    assert "hardly move or turn" in page
    assert page.count("data:image/jpeg;base64,") > 60
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_one_seed_writes_the_same_questions_and_another_one_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build([TINY], tmp_path / name, MultiSpaSettings(train=4, evaluation=0, frames=12, seed=seed), quiet)
    texts = [
        "".join(path.read_text(encoding="utf-8") for path in sorted((tmp_path / name / "train").iterdir()))
        for name in "abc"
    ]
    assert texts[0] == texts[1] != texts[2]


@given(
    overlap=st.lists(st.floats(0, 100), max_size=300),
    count=st.integers(0, 200),
    seed=st.integers(0, 5),
)
def test_each_percent_of_overlap_gives_the_same_number_of_pairs(overlap: list[float], count: int, seed: int) -> None:
    values = np.array(overlap)
    rows = chosen_pairs(values, np.ones(len(values), dtype=bool), count, (6, 35), np.random.default_rng(seed))
    inside = (values >= 6) & (values <= 35)
    assert len(rows) == len(set(rows)) == min(count, np.count_nonzero(inside))
    assert inside[rows].all()
    bins = np.maximum(np.ceil(values), 7)
    taken, there = Counter(bins[rows]), Counter(bins[inside])
    if count >= len(there):
        fullest = max(taken.values(), default=0)
        for percent, available in there.items():
            assert taken[percent] >= min(available, count // len(there)), f"{percent} %: {taken} of {there}"
            assert taken[percent] in (available, fullest, fullest - 1) or available > taken[percent]


@pytest.mark.parametrize("name", sorted({subtask.wording for subtask in SUBTASKS}))
def test_there_are_many_wordings_and_each_fills_in(name: str) -> None:
    lists = wordings()[name]
    fill = dict.fromkeys(("x1", "y1", "x2", "y2", "xa", "ya", "za", "answer"), 7) | {"dimension": "d", "category": "c"}
    for role, sentences in lists.items():
        assert len(set(sentences)) == len(sentences) >= (3 if role == "format" else 4)
        for sentence in sentences:
            assert "{" not in sentence.format(**fill)
    answers = [re.findall(r"`[^`]+`", sentence) for sentence in lists["answers"]]
    assert all(len(found) == 1 for found in answers)
    asked = [role for role in lists if role not in ("about", "answers", "format", "still")]
    assert sum(len(lists[role]) for role in asked) * len(lists["about"]) >= 30


def test_answers_of_one_kind_are_balanced(tmp_path: Path) -> None:
    """So that a model cannot learn an answer from the question alone."""
    settings = MultiSpaSettings(train=60, evaluation=0, frames=24)
    built = build(["rendered:seed=5,rooms=1,frames=24,rate=1,size=160x120"], tmp_path / "out", settings, quiet)
    for made in built.made:
        if made.subtask.kind in (Kind.WORD, Kind.LETTER):
            counts = Counter(record["gt_value"] for record in made.records)
            if counts.total() < 4:
                continue
            options = 4 if "multichoice" in made.subtask.name else 2
            assert len(counts) == options, f"{made.subtask.name}: {counts}"
            most = 0.6 * counts.total() + 1 if made.subtask.name in WORDS else counts.total() / options + 3
            assert max(counts.values()) <= most, f"{made.subtask.name}: {counts}"
    hard = [r["distractors"] for m in built.made for r in m.records if "distractors" in r]
    assert abs(hard.count("hard") - hard.count("easy")) <= 1


def test_where_all_ways_are_the_same_only_a_share_of_them_is_asked() -> None:
    n = 40
    move = np.tile([0.0, 0.0, 0.5], (n, 1))
    move[:4, 2] = -0.5
    pairs = Pairs(
        scene=np.zeros(n, dtype=int), first=np.arange(n), second=np.arange(n) + 1, overlap=np.linspace(7, 34, n),
        move=move, back=move, yaw=np.full(n, 10.0), pitch=np.full(n, 10.0),
    )  # fmt: skip
    rejected: Counter[str] = Counter()
    arguments = ([], pairs, 30, MultiSpaSettings(), np.random.default_rng(0), rejected)
    made = Counter(sample.gt for sample in camera_samples(BY_NAME["z_movement"], *arguments))
    assert made == {"forward": 6, "backward": 4}
    assert rejected["pairs with the answer 'forward' beyond 60%"] == 20
    turns = Counter(sample.gt for sample in camera_samples(BY_NAME["yaw_movement"], *arguments))
    assert turns == {"left": 15, "right": 15}


def test_a_recording_without_depth_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    write_folder(RenderedSource(frames=4, width=64, height=48), tmp_path / "scan")
    for path in (tmp_path / "scan").glob("*.depth.png"):
        path.unlink()
    with pytest.raises(SourceError, match="no depth"):
        build([str(tmp_path / "scan")], tmp_path / "out", SETTINGS, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["scan"], "something half written is left"


def test_one_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="one usable frame"):
        build(["rendered:frames=1,size=64x48"], tmp_path / "out", SETTINGS, quiet)
    assert not list(tmp_path.iterdir())


def test_images_that_share_nothing_give_no_pairs_and_the_reason(tmp_path: Path) -> None:
    spec = "rendered:seed=4,rooms=3,frames=2,rate=0.02,size=160x120"
    built = build([spec], tmp_path / "out", MultiSpaSettings(train=3, evaluation=0), quiet)
    made = {m.subtask.name: m for m in built.made}
    assert made["depth_estimation_dot"].records
    for name in ("total_distance", "visual_correspondence_coor_2_coor"):
        assert not made[name].records
        assert any("overlap" in reason for reason in made[name].rejected), made[name].rejected


def test_nothing_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "sequence.npz").write_bytes(_tapvid(tmp_path, moving=False).read_bytes())
    with pytest.raises(SourceError, match="not one question could be made"):
        build([str(tmp_path / "sequence.npz")], tmp_path / "out", MultiSpaSettings(train=3, points_per_group=0), quiet)


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear", encoding="utf-8")
    for overwrite, words in ((False, "exists already"), (True, "is not a MultiSPA folder")):
        with pytest.raises(SourceError, match=words):
            build([HELD], tmp_path / "home", SETTINGS, quiet, overwrite=overwrite)
    assert (tmp_path / "home" / "letter.txt").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """Files may not grow beyond 8 kB here, which the system tells as it tells a full disk: by an OSError of the write."""
    resource = pytest.importorskip("resource")
    arguments = [
        "data",
        "multispa",
        "rendered:frames=6,size=160x120",
        "--output",
        str(tmp_path / "out"),
        "--train",
        "2",
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        result = CliRunner().invoke(main, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert result.exit_code == 2, result.output
    assert "too large" in result.output
    assert not list(tmp_path.iterdir())


def test_a_recording_up_to_scale_is_refused(tmp_path: Path) -> None:
    write_folder(RenderedSource(frames=4, width=64, height=48), tmp_path / "scan")
    (tmp_path / "scan" / "recording.yaml").write_text("pose_unit_m: 0.0\n", encoding="utf-8")
    with pytest.raises(SourceError, match="up to scale only"):
        build([str(tmp_path / "scan")], tmp_path / "out", SETTINGS, quiet)


def test_the_command_tells_what_was_made_and_that_one_place_cannot_be_split(tmp_path: Path) -> None:
    arguments = ["data", "multispa", "rendered:frames=8,size=64x48", "--output", str(tmp_path / "out"), "--train", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "a second place" in result.output
    assert "26" not in result.output or "questions" in result.output
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "exists already" in again.output


@pytest.mark.parametrize("overlap", [("35", "6"), ("6", "6")])
def test_an_overlap_that_makes_no_sense_is_refused(tmp_path: Path, overlap: tuple[str, str]) -> None:
    result = CliRunner().invoke(
        main, ["data", "multispa", HELD, "--output", str(tmp_path / "o"), "--overlap", *overlap]
    )
    assert result.exit_code == 2
    assert "the lower first" in result.output


def test_a_folder_with_objects_and_tracks_beside_it_gives_sizes_and_movements(tmp_path: Path) -> None:
    rendered = CliRunner().invoke(main, ["render", str(tmp_path / "scan"), STILL])
    assert rendered.exit_code == 0, rendered.output
    boxes = json.loads((tmp_path / "scan" / "objects.json").read_text(encoding="utf-8"))["objects"]
    built = build([str(tmp_path / "scan")], tmp_path / "out", MultiSpaSettings(train=4, evaluation=0, frames=24), quiet)
    made = {m.subtask.name: m for m in built.made}
    assert made["object_movement_coor_vector_still_camera"].records
    assert made["object_height"].records or made["object_height"].rejected
    truth = {b["name"]: b["size"] for b in boxes}
    for record in made["object_height"].records:
        assert record["gt_value"] == round(1000 * truth[record["object"]][2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a list of objects"),
        ('{"objects": [{"name": "a", "category": "b", "centre": [0, 0], "size": [1, 1, 1]}]}', "three numbers each"),
        ('{"objects": [{"name": "a", "category": "b", "centre": [0, 0, 0], "size": [1, 1, 0]}]}', "sizes are positive"),
    ],
)
def test_objects_that_cannot_be_read_are_refused_with_the_form_they_need(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "objects.json").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=words) as raised:
        objects_of(_Plain(), tmp_path)  # type: ignore[arg-type]
    assert '"category"' in str(raised.value)


class _Plain:
    """A recording that knows nothing of objects and tracks."""


def test_damaged_tracks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tracks.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(SourceError, match="holds no tracked points"):
        tracks_of(_Plain(), tmp_path)  # type: ignore[arg-type]


def test_pickled_code_in_a_file_of_tracks_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was-run"),)

    array = np.empty(1, dtype=object)
    array[0] = Evil()
    np.savez(tmp_path / "tracks.npz", stamps_ns=array, tracks_XYZ=np.zeros((1, 1, 3)), visibility=np.zeros((1, 1)))
    with pytest.raises(SourceError, match="no array of numbers"):
        tracks_of(_Plain(), tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "was-run").exists()
    assert pickle.dumps(Evil())


def test_points_that_keep_their_distances_are_one_body() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.2, 0.2, (2, 8, 3))
    shift = np.linspace(0, 1, 6)[:, None, None] * np.array([1.0, 0, 0])
    world = np.concatenate([np.repeat(a[None], 6, 0), b[None] + shift], axis=1)
    tracks = Tracks(stamps=np.arange(6), world=world, visible=np.ones((6, 16), dtype=bool))
    assert sorted(sorted(body.tolist()) for body in tracks.bodies()) == [list(range(8)), list(range(8, 16))]


def _tapvid(folder: Path, moving: bool) -> Path:
    """A file as TAPVid-3D writes it, of a rendered house."""
    import cv2

    source = RenderedSource.from_spec(
        "rendered:seed=2,rooms=2,frames=12,rate=2,size=160x120,moving=3,still=on,noise=off"
    )
    tracks = source.tracks
    assert tracks is not None
    poses = [np.linalg.inv(source.true_pose(k)) for k in range(12)]
    images = np.empty(12, dtype=object)
    for k in range(12):
        images[k] = cv2.imencode(".jpg", source.frame(k).image[..., ::-1])[1].tobytes()
    camera = source.camera
    path = folder / f"tapvid-{moving}.npz"
    np.savez(
        path,
        images_jpeg_bytes=images,
        tracks_XYZ=np.stack([w @ T[:3, :3].T + T[:3, 3] for w, T in zip(tracks.world, poses, strict=True)]),
        visibility=tracks.visible if moving else np.zeros_like(tracks.visible),
        fx_fy_cx_cy=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        extrinsics_w2c=np.stack(poses),
        queries_xyt=np.zeros((tracks.world.shape[1], 3)),
    )
    return path


def test_a_file_of_tapvid_3d_gives_movements_and_nothing_that_needs_depth(tmp_path: Path) -> None:
    path = _tapvid(tmp_path, moving=True)
    source = RenderedSource.from_spec(
        "rendered:seed=2,rooms=2,frames=12,rate=2,size=160x120,moving=3,still=on,noise=off"
    )
    assert np.allclose(TapVidSource(path).tracks.world, source.tracks.world)
    built = build([str(path)], tmp_path / "out", MultiSpaSettings(train=5, evaluation=0), quiet)
    made = {m.subtask.name: m for m in built.made}
    assert len(made["object_movement_dot_distance_still_camera"].records) == 5
    assert not made["depth_estimation_dot"].records
    assert made["depth_estimation_dot"].rejected["no depth"] == 1


def test_a_file_that_is_no_tapvid_says_what_it_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", tracks_XYZ=np.zeros((2, 1, 3)))
    with pytest.raises(SourceError, match="it lacks fx_fy_cx_cy, images_jpeg_bytes, visibility"):
        TapVidSource(tmp_path / "x.npz")
