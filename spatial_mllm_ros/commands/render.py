"""spatial-mllm render: a simulated house as a recording on disk, with questions and their truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import click

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.learning.objects import FILE as OBJECTS
from spatial_mllm_ros.learning.objects import objects_of, save_objects
from spatial_mllm_ros.learning.tracks import FILE as TRACKS
from spatial_mllm_ros.learning.tracks import save_tracks
from spatial_mllm_ros.simulation.rendered import RenderedSource
from spatial_mllm_ros.sources.stamps import ns_to_seconds
from spatial_mllm_ros.sources.writers import replacing, write_folder
from spatial_mllm_ros.visualisation.report.floorplan import floor_plan_svg

EPILOG = """
\b
Examples:
  spatial-mllm render house                                the default house, an RGB-D folder
  spatial-mllm render house --rooms 5 --seed 3 --frames 600
  spatial-mllm render house.bag --bag --storage sqlite3    a rosbag2, for "ros2 bag play"
  spatial-mllm ask house --questions house/questions.json  ask what was rendered, check against the truth

DIR gets the recording, questions.json with exact answers (docs/questions-file.md), floor-plan.svg, objects.json and, of
what moves (rendered:moving=4), tracks.npz (docs/learning.md). It appears whole or not at all.
"""


@click.command(name="render", epilog=EPILOG, short_help="Write a simulated recording with questions and their truth.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("spec", default="rendered")
@click.option("--bag", is_flag=True, help="A rosbag2 instead of an RGB-D folder.")
@click.option(
    "--storage", type=click.Choice(["mcap", "sqlite3"]), default="mcap", show_default=True, help="Of the rosbag2."
)
@click.option("--questions", type=click.IntRange(0, 5000), default=60, show_default=True, metavar="N", help="How many.")
@click.option("--frames", type=int, metavar="N", help="How many frames.  [default: 300]")
@click.option("--rooms", type=int, metavar="N", help="1 to 12.  [default: 3]")
@click.option("--seed", type=int, metavar="N", help="Another house.  [default: 0]")
@click.option("--size", metavar="WxH", help="Of the images, px.  [default: 640x480]")
@click.option("--noise/--no-noise", default=None, help="Errors of a real sensor, or exact.  [default: noise]")
@click.option("--overwrite", is_flag=True, help="Replace DIR if it is a recording.")
def render_command(
    *,
    folder: Path,
    spec: str,
    bag: bool,
    storage: str,
    questions: int,
    frames: int | None,
    rooms: int | None,
    seed: int | None,
    size: str | None,
    noise: bool | None,
    overwrite: bool,
) -> None:
    """Render a simulated house into DIR as a recording, with questions, their truth and a floor plan.

    SPEC is rendered[:seed=3,rooms=2,frames=600,rate=10,size=320x240,noise=off,moving=3,still=on]; the options say the same.
    """
    given = {"frames": frames, "rooms": rooms, "seed": seed, "size": size}
    parts = [f"{key}={value}" for key, value in given.items() if value is not None]
    if noise is not None:
        parts.append(f"noise={'on' if noise else 'off'}")
    name, colon, rest = spec.partition(":")
    source = RenderedSource.from_spec(f"{name}{':' if parts or colon else ''}{','.join(filter(None, [rest, *parts]))}")
    with replacing(folder, overwrite) as workshop:
        with common.progress_bar(f"rendering {source.info.name}") as update:
            if bag:
                from spatial_mllm_ros.sources.bag_writer import BagFormat, write_bag

                chosen = BagFormat(storage=cast(Literal["mcap", "sqlite3"], storage))
                written = write_bag(source, workshop, chosen, progress=update)
            else:
                written = write_folder(source, workshop, progress=update).frames
        if source.movers:
            common.say("no questions: their truth is known of a house at rest alone (see spatial-mllm data multispa)")
            questions = 0
            if source.tracks is not None:
                save_tracks(workshop / TRACKS, source.tracks)
        save_objects(workshop / OBJECTS, objects_of(source, None))
        if questions:
            common.say("finding questions and their truth ...")
            made = questions_of(source, questions, bag)
            (workshop / "questions.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        (workshop / "floor-plan.svg").write_text(floor_plan_svg(source), encoding="utf-8")
    asked = f", {len(made['questions'])} questions" if questions else ""
    click.echo(common.printable(f"{folder}: {written} frames{asked}, floor-plan.svg"))


def questions_of(source: RenderedSource, count: int, by_stamp: bool) -> dict[str, Any]:
    """Questions with truth; ``by_stamp``: frames by their stamps in seconds, as a rosbag2 knows them."""
    from spatial_mllm_ros.simulation.truth import make_questions

    made = make_questions(source, count)
    if by_stamp:
        for question in made["questions"]:
            for mark in (*question["points"], *question["boxes"], *question["times"]):
                mark["frame"] = ns_to_seconds(source.stamp_of(mark["frame"]))
    return made
