"""spatial-mllm data: questions about one's own recordings, to train and to evaluate with."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from spatial_mllm_ros.commands import common

EPILOG = """
\b
Examples:
  spatial-mllm data multispa scans/* --output questions
  spatial-mllm data multispa rendered:seed=1 rendered:seed=2,moving=4 rendered:seed=3,moving=4,still=on --output questions
  spatial-mllm data multispa scene0000_00.sens adt_sequence.npz --output questions --train 2000 --eval 300

DIR gets train/ and eval/ (a JSONL file for each subtask, in InternVL's format), images/, report.html (look at it),
scenes.json, summary.json and internvl.json. It appears whole or not at all. See docs/learning.md.
"""


@click.group(name="data", short_help="Make questions from recordings, to train and evaluate models.")
def data_group() -> None:
    """Make questions from recordings, to train and evaluate models."""


@data_group.command(name="multispa", epilog=EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The folder to write.")
@click.option(
    "--train", type=click.IntRange(0), default=200, show_default=True, metavar="N", help="Questions a subtask."
)
@click.option(
    "--eval", "evaluation", type=click.IntRange(0), default=40, show_default=True, metavar="N", help="Held out."
)
@click.option(
    "--eval-share", type=click.FloatRange(0, 0.99), default=0.2, show_default=True, metavar="S",
    help="Of the recordings (whole places), held out for evaluation.",
)  # fmt: skip
@click.option(
    "--frames", type=click.IntRange(2, 2000), default=120, show_default=True, metavar="N", help="Of each recording."
)
@click.option(
    "--overlap", nargs=2, type=click.IntRange(0, 100), default=(6, 35), show_default=True, metavar="LOW HIGH",
    help="Of pairs of images, percent of the points that either sees.",
)  # fmt: skip
@click.option(
    "--least-move", type=click.FloatRange(0), default=0.05, show_default=True, metavar="M",
    help="Directions are asked only of movements of so much; 0 as published.",
)  # fmt: skip
@click.option(
    "--least-turn",
    type=click.FloatRange(0, 90),
    default=3.0,
    show_default=True,
    metavar="DEG",
    help="The same for turns.",
)
@click.option(
    "--most-share", type=click.FloatRange(0.5, 1), default=0.6, show_default=True, metavar="S",
    help="No direction is the answer more often; 1 as published.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Another draw.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if it holds MultiSPA questions.")
def multispa_command(
    *,
    sources: tuple[str, ...],
    output: Path,
    train: int,
    evaluation: int,
    eval_share: float,
    frames: int,
    overlap: tuple[int, int],
    least_move: float,
    least_turn: float,
    most_share: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Write the questions of MultiSPA (arXiv 2505.17015) about recordings with depth and poses: 26 subtasks of depth,
    correspondence, camera movement, object size and object movement.

    Sizes need known objects (objects.json beside a recording; rendered houses have them), movement needs tracked points
    (tracks.npz beside it, rendered:...,moving=4, or a file of TAPVid-3D). What a recording lacks is said, not made up.
    """
    from spatial_mllm_ros.learning.multispa.engine import build
    from spatial_mllm_ros.learning.multispa.report import balance, write_report
    from spatial_mllm_ros.learning.multispa.settings import MultiSpaSettings

    try:
        settings = MultiSpaSettings(
            train=train,
            evaluation=evaluation,
            evaluation_share=eval_share,
            frames=frames,
            overlap_percent=overlap,
            least_move_m=least_move,
            least_turn_deg=least_turn,
            most_share=most_share,
            seed=seed,
        )
    except ValueError as error:
        raise common.Failure(str(error)) from error
    with common.task_progress() as progress:
        built = build(sources, output, settings, progress, overwrite=overwrite, finish=write_report)
    for scene in built.scenes:
        for remark in scene.remarks:
            common.say(f"{scene.name}: {remark}")
    if "eval" not in built.split_of.values() and evaluation:
        common.say("all is for training: questions to evaluate with need a second place, as no image is in both")
    table = Table("task", "subtask", "train", "eval", "balance", "left out", box=None, header_style="bold")
    rows = {made.subtask.name: {m.split: m for m in built.made if m.subtask is made.subtask} for made in built.made}
    for name, splits in rows.items():
        first = next(iter(splits.values()))
        counts = [f"{len(splits[s].records)} of {splits[s].wanted}" if s in splits else "" for s in ("train", "eval")]
        shares = " ".join(f"{answer} {count}" for answer, count in balance(first).items())
        left_out = "; ".join(f"{count} {reason}" for reason, count in first.rejected.most_common(2))
        table.add_row(first.subtask.task, name, *counts, shares, left_out)
    common.out().print(table)
    click.echo(common.printable(f"{output}: {sum(len(m.records) for m in built.made)} questions; look at report.html"))
