"""Benchmarks: read as they come, scored as published, resumed where they stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_ros.cli import main
from spatial_mllm_ros.commands.evaluate import NAMES
from spatial_mllm_ros.learning.evaluation import readings
from spatial_mllm_ros.learning.evaluation.answerers import (
    Both,
    Chance,
    Failed,
    Frequency,
    ModelAnswerer,
    Refused,
    prompt_of,
)
from spatial_mllm_ros.learning.evaluation.items import Item
from spatial_mllm_ros.learning.evaluation.multispa import MultiSpa
from spatial_mllm_ros.learning.evaluation.registry import BENCHMARKS
from spatial_mllm_ros.learning.evaluation.run import evaluate
from spatial_mllm_ros.learning.evaluation.scores import mra, signed_mra, strict_mra
from spatial_mllm_ros.learning.evaluation.spar import SparBench
from spatial_mllm_ros.learning.evaluation.vsi import VsiBench
from spatial_mllm_ros.learning.multispa.engine import build
from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings
from spatial_mllm_ros.serving.interface import ModelError, ModelUnavailable
from spatial_mllm_ros.sources.source import SourceError


def item(kind: str, truth: Any, options: tuple[str, ...] = (), **record: Any) -> Item:
    return Item(id="1", kind=kind, question="?", truth=truth, options=options, record=record)


@pytest.mark.parametrize(
    ("told", "truth", "at_most", "below"),
    [
        (4.0, 4.0, 1.0, 1.0),
        (6.0, 4.0, 0.1, 0.0),  # an error of exactly one half: counted by VSI-Bench, not by Spatial-MLLM
        (5.0, 4.0, 0.6, 0.5),  # of exactly a quarter
        (2.1, 4.0, 0.1, 0.1),
        (9.0, 4.0, 0.0, 0.0),
    ],
)
def test_mean_relative_accuracy_at_its_bounds(told: float, truth: float, at_most: float, below: float) -> None:
    assert mra(told, truth) == pytest.approx(at_most)
    assert strict_mra(told, truth) == pytest.approx(below)


@given(st.floats(0.01, 100), st.floats(-50, 200))
def test_mean_relative_accuracy_lies_between_0_and_1_and_never_grows_with_the_error(truth: float, told: float) -> None:
    further = told + np.sign(told - truth) * 0.1 * truth
    for score in (mra, strict_mra, signed_mra):
        assert 0 <= score(further, truth) <= score(told, truth) <= 1


def test_a_truth_of_zero_divides_nothing() -> None:
    assert mra(0.0, 0.0) == 1
    assert mra(0.1, 0.0) == 0
    assert signed_mra(0.3, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "first", "whole", "last"),
    [
        ("3.5", 3.5, 3.5, 3.5),
        ("3.5 meters", 3.5, None, 3.5),
        ("It is 3.5", None, None, 3.5),
        ("<answer>4</answer>", None, 4.0, 4.0),
        ("1,200.", None, 1200.0, 1200.0),
        ("between 2 and 3 m.", None, None, 3.0),
        ("none", None, None, None),
    ],
)
def test_suites_read_one_text_differently(
    text: str, first: float | None, whole: float | None, last: float | None
) -> None:
    assert readings.to_float(readings.first_word(text)) == first
    assert readings.whole_number(readings.cleaned(text)) == whole
    assert readings.last_number(text) == last


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("b.", "B"), ("(C)", "C"), ("B. left", "B"), ("The answer is D.", "D"), ("It is `A`.", "A"),
        ("A or B", ""), ("(A) and (B)", ""), ("Banana", ""), ("E", ""), ("", ""), ("a chair", ""),
    ],
)  # fmt: skip
def test_a_letter_is_read_only_where_one_is_named(text: str, letter: str) -> None:
    assert readings.letter(text, 4) == letter


def test_vsi_bench_counts_direction_once_and_tells_macro_and_micro() -> None:
    rules = VsiBench()
    grades = [f"object_rel_direction_{g}" for g in ("easy", "medium", "hard")]
    scored = [(item(kind, "A"), {"vsibench": s}) for kind, s in zip(grades, (1.0, 0.5, 0.0), strict=True)]
    scored += [(item("object_counting", "3"), {"vsibench": 1.0})] * 7
    assert rules.summary(scored, "vsibench") == pytest.approx(
        {"overall": 75.0, "object_counting": 100.0, "object_rel_direction": 50.0, "micro": 85.0}
    )


def test_variants_of_vsi_bench_differ_where_their_rules_do() -> None:
    number = VsiBench().score(item("object_abs_distance", "4.0"), "<answer>6</answer>")
    assert number == {"vsibench": 0.0, "spatial-mllm": 0.0, "last-number": pytest.approx(0.1)}
    choice = VsiBench().score(item("route_planning", "B", ("A. l", "B. r")), "B. right")
    assert choice == {"vsibench": 1.0, "spatial-mllm": 0.0, "last-number": 1.0}


@pytest.mark.parametrize(
    ("kind", "truth", "text", "score"),
    [
        ("depth_prediction_oc", "2.0", "2.0 or 9", 1.0),
        ("depth_prediction_oc_mv", "2.0", "9 or 2.0", 1.0),
        ("position_matching", "B", "b", 1.0),
        ("position_matching", "B", "B, as", 1.0),
        ("position_matching", "B", "", 0.0),
        ("view_change_infer", "move_right:1,rotate_left:10", "move_right:1,rotate_left:10", 1.0),
        ("view_change_infer", "move_right:1,rotate_left:10", "move_left:1,rotate_left:10", 0.8),
        ("view_change_infer", "move_right:1", "to the right", 0.0),
    ],
)
def test_spar_bench_by_kind(kind: str, truth: str, text: str, score: float) -> None:
    assert SparBench().score(item(kind, truth), text)["sparbench"] == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "truth", "text", "right"),
    [
        ("total_distance", 1000, "`1190` mm", True),
        ("total_distance", 1000, "It is 1210 mm.", False),
        ("displacement_vector", [1.0, 0.0, 0.0], "By `[ 1000 , 150 , 0 ]` mm.", True),
        ("displacement_vector", [1.0, 0.0, 0.0], "By `[ 1000 , 250 , 0 ]` mm.", False),
        ("x_movement", "left", "To the `left`.", True),
        ("x_movement", "left", "left or right", False),
        ("depth_comparison_dot", "B", "Point `B`.", True),
        ("visual_correspondence_coor_2_coor", [500, 500], "`[ 580 , 500 ]`", True),
        ("visual_correspondence_coor_2_coor", [500, 500], "`[ 610 , 500 ]`", False),
        ("object_movement_dot_distance_still_camera", 0, "`8` mm", True),
        ("object_movement_dot_distance_still_camera", 0, "`12` mm", False),
        ("yaw_angle", 10, "no idea", False),
    ],
)
def test_tolerances_of_multispa(kind: str, truth: Any, text: str, right: bool) -> None:
    asked = item(kind, truth, _options(kind), width_list=[640, 640], height_list=[480, 480])
    assert MultiSpa().score(asked, text) == {"multispa": float(right)}


def _options(kind: str) -> tuple[str, ...]:
    return {"x_movement": ("right", "left"), "depth_comparison_dot": ("A", "B")}.get(kind, ())


def test_of_two_points_the_nearer_one_to_what_is_told_counts() -> None:
    record = {"points": [[[64, 48], [128, 48]]], "width_list": [640], "height_list": [480]}
    asked = item("depth_comparison_coor", [100, 100], **record)
    assert MultiSpa().score(asked, "`[ 110 , 100 ]`") == {"multispa": 1.0}
    assert MultiSpa().score(asked, "`[ 160 , 100 ]`") == {"multispa": 0.0}, (
        "within 10 % of the width, but the other point"
    )


VSI_ROWS = [
    {"id": k, "dataset": "d", "scene_name": f"s{k}", "question_type": kind, "question": "?", "ground_truth": truth,
     "options": options, "pruned": k == 2}
    for k, (kind, truth, options) in enumerate(
        [("object_counting", "3", None), ("object_counting", "3", None), ("object_counting", "5", None),
         ("route_planning", "B", ["A. l", "B. r"]), ("route_planning", "A", ["A. l", "B. r"])]
    )
]  # fmt: skip
CHOICE = {"question": "?", "choices": ["l", "r"], "answer": "(B)"}
LAYOUTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "vsibench": {"test.jsonl": VSI_ROWS},
    "vsibench-debiased": {"test.jsonl": VSI_ROWS},
    "sparbench": {"test.jsonl": [{"id": 1, "task": "depth_prediction_oc", "question": "?", "answer": "2.0"}]},
    "blink": {
        "val.jsonl": [
            {"idx": "1", "sub_task": "Relative_Depth", **CHOICE},
            {"idx": "2", "sub_task": "Jigsaw", **CHOICE},
        ]
    },
    "cvbench": {"test.jsonl": [{"idx": 1, "task": "Count", "source": "COCO", **CHOICE}]},
    "scanqa": {"ScanQA_v1.0_val.json": [{"question_id": "q", "question": "?", "answers": ["a chair", "chair"]}]},
    "sqa3d": {
        "v1_balanced_questions_test_x.json": [{"question_id": 1, "question": "What is it?", "situation": "I sit."}],
        "v1_balanced_sqa_annotations_test_x.json": [{"question_id": 1, "answers": [{"answer": "left"}]}],
    },
}


def write(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in LAYOUTS[name].items():
        text = "\n".join(map(json.dumps, rows)) if file.endswith("l") else json.dumps({"questions": rows})
        (folder / file).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_each_benchmark_is_read_and_the_truth_scores_100(tmp_path: Path, name: str) -> None:
    rules = BENCHMARKS[name]
    items = rules.load(write(tmp_path, name))
    assert len(items) == {"vsibench": 5, "vsibench-debiased": 4}.get(name, 1)
    scored = [(i, rules.score(i, i.truth[0] if isinstance(i.truth, tuple) else i.truth)) for i in items]
    for variant in rules.variants:
        assert rules.summary(scored, variant)["overall"] == 100


def test_every_benchmark_has_a_name_on_the_command_line() -> None:
    assert set(NAMES) == set(BENCHMARKS)


def test_a_parquet_file_of_the_hub_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(VSI_ROWS), tmp_path / "test-00000-of-00001.parquet")
    assert [i.truth for i in VsiBench().load(tmp_path)] == ["3", "3", "5", "B", "A"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"id": 1}\n{"id": ', "test.jsonl, line 2 is not JSON"),
        ('{"id": 1, "dataset": "d"}', "another version of the benchmark"),
        ("\n", "has no records"),
    ],
)
def test_damaged_or_foreign_files_are_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "test.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=words):
        VsiBench().load(tmp_path)


def test_a_folder_without_the_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has none of test\.jsonl"):
        VsiBench().load(tmp_path)
    (tmp_path / "test.jsonl").write_text(json.dumps({k: v for k, v in VSI_ROWS[0].items() if k != "pruned"}), "utf-8")
    with pytest.raises(SourceError, match="does not mark"):
        VsiBench(debiased=True).load(tmp_path)


class Counting:
    """Answers "3", counts how often it is asked, and dies when told to."""

    name = "counting"

    def __init__(self, dies_at: int = 99) -> None:
        self.asked: list[str] = []
        self.dies_at = dies_at

    def answer(self, asked: Item) -> str:
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(asked.id)
        if asked.options:
            raise Refused("no letters: I count")
        return "3"


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    items = VsiBench().load(write(tmp_path / "data", "vsibench"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(VsiBench(), items, Counting(dies_at=3), tmp_path / "out")
    log = tmp_path / "out" / "counting.jsonl"
    log.write_text(log.read_text("utf-8")[:-9], encoding="utf-8")  # and the last line was cut off
    second = Counting()
    outcome = evaluate(VsiBench(), items, second, tmp_path / "out")
    assert second.asked == ["2", "3", "4"]
    whole = evaluate(VsiBench(), items, Counting(), tmp_path / "fresh")
    assert outcome.figures == whole.figures
    assert outcome.refused == {"no letters": 2}
    assert outcome.answered == 60
    assert outcome.figures["vsibench"]["route_planning"] == 0, "a refusal scores nothing"
    assert [json.loads(line)["id"] for line in log.read_text("utf-8").splitlines()] == ["0", "1", "2", "3", "4"]


def test_answers_to_other_questions_are_not_taken_over(tmp_path: Path) -> None:
    items = VsiBench().load(write(tmp_path / "data", "vsibench"))
    evaluate(VsiBench(), items, Counting(), tmp_path / "out")
    with pytest.raises(SourceError, match="answers to other questions"):
        evaluate(VsiBench(), items[:2], Counting(), tmp_path / "out")
    (tmp_path / "out" / "counting.jsonl").write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(SourceError, match="line 1 is no answer"):
        evaluate(VsiBench(), items, Counting(), tmp_path / "out")


def test_blind_baselines_see_the_truths_alone(tmp_path: Path) -> None:
    items = VsiBench().load(write(tmp_path, "vsibench"))
    frequency = Frequency(items)
    assert [frequency.answer(i) for i in items[:3]] == ["3", "3", "3"]
    chance = [Chance(items, seed).answer(items[3]) for seed in range(40)]
    assert set(chance) == {"A", "B"}
    drawn = [float(Chance(items, seed).answer(items[0])) for seed in range(40)]
    assert 3 <= min(drawn) < max(drawn) <= 5
    assert Chance(items, 1).answer(items[0]) == Chance(items, 1).answer(items[0])
    bracketed = Item(id="9", kind="Relative_Depth", question="?", truth="(B)", options=("l", "r"))
    assert Chance([bracketed]).answer(bracketed) in ("(A)", "(B)"), "in the form of the truth"


class FakeModel:
    """Says how many frames it was shown."""

    model_id = "fake"

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.prompts = fails, []

    def ask(self, question: Any, frames: Any, **rest: Any) -> Any:
        if self.fails:
            raise ModelError("out of memory")
        self.prompts.append(question.text)
        return type("Said", (), {"text": str(len(frames))})()


def test_a_model_is_shown_the_images_in_pairs_and_its_failure_is_told(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    asked = Item(
        id="1", kind="yaw_angle", question="<image>\nHow far?", truth=3, media=(tmp_path / "a.png",) * 3,
    )  # fmt: skip
    model = FakeModel()
    assert ModelAnswerer(model).answer(asked) == "4"  # type: ignore[arg-type]
    assert "<image>" not in model.prompts[0]
    with pytest.raises(Failed, match="out of memory"):
        ModelAnswerer(FakeModel(fails=True)).answer(asked)  # type: ignore[arg-type]
    missing = Item(id="2", kind="x", question="?", truth="3", media=(tmp_path / "b.png",))
    with pytest.raises(Failed, match="is missing"):
        ModelAnswerer(model).answer(missing)  # type: ignore[arg-type]


def test_questions_that_failed_are_put_again_and_a_model_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    items = VsiBench().load(write(tmp_path / "data", "vsibench"))[:2]

    class Flaky(Counting):
        broken = True

        def answer(self, asked: Item) -> str:
            if self.broken and asked.id == "0":
                raise Failed("the model failed: out of memory")
            return super().answer(asked)

    first = evaluate(VsiBench(), items, Flaky(), tmp_path / "out")
    assert first.predictions == {"0": None, "1": "3"}
    again = Flaky()
    again.broken = False
    assert evaluate(VsiBench(), items, again, tmp_path / "out").predictions == {"0": "3", "1": "3"}
    assert again.asked == ["0"]

    class Gone(FakeModel):
        def ask(self, question: Any, frames: Any, **rest: Any) -> Any:
            raise ModelUnavailable("killed")

    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    asked = Item(id="1", kind="yaw_angle", question="?", truth=3, media=(tmp_path / "a.png",))
    with pytest.raises(ModelUnavailable, match="killed"):
        evaluate(MultiSpa(), [asked], ModelAnswerer(Gone()), tmp_path / "gone")  # type: ignore[arg-type]


def test_both_ask_the_model_only_where_geometry_refuses() -> None:
    class Second:
        name = "second"

        def answer(self, asked: Item) -> str:
            return "B"

    both = Both(Counting(), Second())
    assert both.answer(item("object_counting", "3")) == "3"
    assert both.answer(item("route_planning", "B", ("A. l", "B. r"))) == "B"


def test_a_prompt_lists_the_options_once() -> None:
    prompt = prompt_of(item("route_planning", "B", ("A. left", "B. right")))
    assert prompt.count("A. left") == prompt.count("B. right") == 1
    assert "(A) l" in prompt_of(Item(id="1", kind="x", question="?", truth="(B)", options=("l", "r")))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("embreex")
    target = tmp_path_factory.mktemp("evaluation") / "questions"
    specs = [f"rendered:seed={seed},rooms=1,frames=24,rate=2,size=160x120" for seed in (1, 5)]
    build(specs, target, MultiSpaSettings(train=0, evaluation=3, frames=16, evaluation_share=0.5), lambda *a: None)
    return target


def test_geometry_answers_what_it_can_measure_rightly_and_refuses_the_rest(questions: Path, tmp_path: Path) -> None:
    arguments = [
        "eval",
        "multispa",
        "--data",
        str(questions),
        "--answerer",
        "geometry",
        "--output",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)["answerers"]
    assert set(told) == {"chance", "frequency", "geometry"}
    figures = told["geometry"]["scores"]["multispa"]
    for task in ("depth perception", "visual correspondence", "camera movement"):
        assert figures[task] > 85, figures
    lines = (tmp_path / "out" / "geometry.jsonl").read_text("utf-8").splitlines()
    for row in map(json.loads, lines):
        assert (row["prediction"] is None) == row["kind"].startswith("object_") or row["refused"], row
    assert (tmp_path / "out" / "scores.svg").read_text("utf-8").startswith("<svg")
    table = CliRunner().invoke(main, arguments)
    assert "geometry gave no answer" in table.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vsibench", "--answerer", "geometry"), "does not bring"),
        (("multispa", "--answerer", "model"), "needs --model"),
        (("multispa",), "has none of eval/*.jsonl"),
        (("sqa3d",), "v1_balanced_questions_test"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(main, ["eval", *arguments, "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
