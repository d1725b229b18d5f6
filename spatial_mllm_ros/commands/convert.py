"""spatial-mllm convert: any recording as a folder of this package's own layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from spatial_mllm_ros.commands import common
from spatial_mllm_ros.session.open_source import open_source
from spatial_mllm_ros.session.reasons import what_to_do
from spatial_mllm_ros.sources.writers import write_folder

EPILOG = """
\b
Examples:
  spatial-mllm convert scene0000_00.sens scene          a ScanNet file
  spatial-mllm convert my_bag room --depth-topic none   a bag, its images alone
  spatial-mllm convert walk.mp4 walk                    images of a video with their time stamps

FOLDER gets NAME.color.jpg or .png, NAME.depth.png (16 bits, mm), NAME.pose.txt, camera.yaml, frames.csv, sensor.yaml and,
where something is to be assumed, recording.yaml (docs/recordings.md). It appears whole or not at all.
"""


@click.command(name="convert", epilog=EPILOG, short_help="Write any recording in this package's own layout.")
@click.argument("source")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--jpeg", is_flag=True, help="JPEG also where images were stored without loss.")
@common.input_options
def convert_command(*, source: str, folder: Path, jpeg: bool, inputs: dict[str, Any]) -> None:
    """Write the recording SOURCE into FOLDER, which must be new or empty, in this package's own layout.

    JPEG and PNG are kept byte by byte, images that were stored without loss become PNG. Frames without depth or pose
    remain without.
    """
    opened = open_source(source, inputs)
    common.say_chosen(opened)
    with common.progress_bar(f"converting {opened.info.name}") as update:
        written = write_folder(opened, folder, png=not (jpeg or opened.info.lossy_color), progress=update)
    for note in written.notes:
        common.say(note)
    counts = (("left out", opened.refused), ("without something", Counter(getattr(opened, "remarks", None) or {})))
    for what, reasons in counts:
        for reason, count in (+reasons).most_common():
            common.say(f"{what}: {count} {reason}: {what_to_do(reason)}")
    common.say_doubts(opened.doubts)
    click.echo(common.printable(f"{folder}: {written.frames} frames"))
