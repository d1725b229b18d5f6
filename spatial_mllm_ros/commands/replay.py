"""spatial-mllm replay: a recording through the spatial memory, and what became of it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spatial_mllm_ros.commands import common, geometry, models
from spatial_mllm_ros.session.reasons import COLOR_ONLY, what_to_do
from spatial_mllm_ros.session.stream import Session, StreamReport

EPILOG = """
\b
Examples:
  spatial-mllm replay rendered                          a simulated house, as fast as possible
  spatial-mllm replay rendered:rooms=5,seed=3 --rate 1  in real time, with a live summary
  spatial-mllm replay my_bag --keyframes 8 --report out
  spatial-mllm replay my_room --json | jq .coverage
"""


@click.command(name="replay", epilog=EPILOG, short_help="Stream a recording and show what the memory keeps.")
@click.argument("source")
@common.json_option
@common.report_option
@common.stream_options
@common.input_options
@geometry.option
@models.device_option
@models.random_weights_option
def replay_command(
    *,
    source: str,
    as_json: bool,
    report_folder: Path | None,
    stream: common.StreamOptions,
    inputs: dict[str, Any],
    rgb_geometry: str | None,
    device: str,
    allow_random_weights: bool,
) -> None:
    """Stream SOURCE into the spatial memory: what it keeps, what it refuses and why, what a frame costs.

    SOURCE is a folder or file of any known layout, a bag, a video, a folder of images, or rendered[:options].
    """
    chosen = geometry.choose(rgb_geometry, device, allow_random_weights)
    with geometry.loaded(chosen) as from_color:
        session = common.open_session(source, stream, geometry=from_color, inputs=inputs)
        if not as_json:
            common.say_chosen(session.source)
        watch(session, stream.rate, stream.limit)
    common.say_doubts(session.doubts)
    if from_color is not None:
        common.say(geometry.words(session, chosen))
    if as_json:
        common.print_json(summary(session))
    else:
        print_summary(common.out(), session)
    if report_folder is not None:
        from spatial_mllm_ros.visualisation.report.report import write_report

        common.say(f"report: {write_report(session, [], report_folder)}")


def watch(session: Session, rate: float, limit: int = 0, below: Any = None) -> StreamReport:
    """Stream a session under a live summary on stderr, where that is a terminal.

    below: called for each refresh, gives what to show below the summary.
    """
    console = common.err()
    if not console.is_terminal:
        return session.stream(rate, limit)
    shown = _Shown()
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def on_frame(frame: object, report: StreamReport) -> None:
            if time.monotonic() - shown.at < 0.2:
                return
            if time.monotonic() - shown.coverage_at > 1.0:
                selection = session.keyframes()
                shown.coverage, shown.keyframes = selection.fraction, len(selection.picked)
                shown.coverage_at = time.monotonic()
            shown.at = time.monotonic()
            summary_now = _live(session, shown)
            live.update(Group(summary_now, below()) if below is not None else summary_now, refresh=True)

        return session.stream(rate, limit, on_frame)


class _Shown:
    """What the live summary last showed, and when."""

    at = -math.inf
    coverage_at = -math.inf
    coverage = 0.0
    keyframes = 0


def _live(session: Session, shown: _Shown) -> RenderableType:
    report, memory = session.report, session.memory
    expected = session.source.info.frames
    table = Table.grid(padding=(0, 3))
    table.add_row(
        f"[bold]{report.frames}[/]{f' of {expected}' if expected else ''} frames",
        f"{report.duration_s:.1f} s recorded",
        f"{report.fps:.1f} frames/s",
        f"cost {report.cost_percentile_s(50) * 1e3:.1f} ms a frame",
    )
    table.add_row(
        f"[bold]{shown.keyframes}[/] keyframes",
        f"cover {shown.coverage:.0%}",
        f"pool {len(memory.candidates)}",
        common.megabytes(memory.nbytes),
    )
    if report.refused:
        return Group(table, Text(f"refused: {common.counted(report.refused)}", style="yellow"))
    return table


def summary(session: Session) -> dict[str, Any]:
    """What a replay found, as JSON-serialisable values: seconds, metres, bytes, stamps in ns."""
    report, memory, info = session.report, session.memory, session.source.info
    selection = session.keyframes()
    curve = session.coverage.curve() if session.coverage is not None else None
    return {
        "source": info.name,
        "description": info.description,
        "chosen": list(info.chosen),
        "doubts": [vars(doubt) for doubt in session.doubts],
        "frames": report.frames,
        "taken": report.taken,
        "duration_s": report.duration_s,
        "wall_s": report.wall_s,
        "fps": report.fps,
        "refused": dict(report.refused),
        "geometry_from_color": geometry.report(session),
        "remarks": dict(report.remarks),
        "latest": dict(report.texts),
        "without_depth": memory.without_depth,
        "evicted": memory.evicted,
        "held": len(memory),
        "bytes": memory.nbytes,
        "pool": len(memory.candidates),
        "cost_ms": {"median": report.cost_percentile_s(50) * 1e3, "p99": report.cost_percentile_s(99) * 1e3},
        "coverage": selection.fraction,
        "voxel_size_m": selection.voxel_size if session.metric else None,
        "keyframes": [
            {
                "rank": rank,
                "frame": session.name_of(stored.frame.stamp_ns),
                "stamp_ns": stored.frame.stamp_ns,
                "since_start_s": session.since_start_s(stored.frame.stamp_ns),
                "voxels_gained": gain,
            }
            for rank, stored, gain in session.stored_keyframes()
        ],
        "coverage_over_time": None
        if curve is None
        else {
            "seconds": curve.seconds,
            "streaming": curve.streaming,
            "uniform": curve.uniform,
            "frames": curve.frames,
            "voxel_size_m": curve.voxel_size_m,
        },
    }


def print_summary(console: Console, session: Session) -> None:
    """The end of a replay for people."""
    report, memory, info = session.report, session.memory, session.source.info
    console.print(Text(common.printable(f"{info.name}: {info.description}"), style="bold"))
    selection = session.keyframes()
    keyframes = session.stored_keyframes()
    if keyframes:
        table = Table(pad_edge=False, header_style="bold")
        table.add_column("keyframe", justify="right")
        table.add_column("frame")
        for name in ("after", "stamp", "voxels gained", "covered"):
            table.add_column(name, justify="right")
        covered = 0
        for rank, stored, gain in keyframes:
            covered += gain
            stamp = stored.frame.stamp_ns
            table.add_row(
                str(rank),
                Text(common.printable(session.name_of(stamp))),
                f"{session.since_start_s(stamp):.2f} s",
                f"{stamp / 1e9:.3f} s",
                str(gain),
                f"{covered / selection.total:.1%}" if selection.total else "",
            )
        console.print(table)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row(
        "frames", f"{report.frames} in {report.wall_s:.1f} s ({report.fps:.1f} a second), {report.taken} taken"
    )
    if keyframes:
        facts.add_row(
            "coverage",
            f"{len(keyframes)} keyframes cover {selection.fraction:.1%} of {selection.total} voxels"
            + (f" of {selection.voxel_size * 100:.1f} cm" if session.metric else ""),
        )
        curve = session.coverage.curve() if session.coverage is not None else None
        if curve is not None:
            facts.add_row(
                "", f"of all voxels seen: keyframes {curve.streaming[-1]:.1%}, "
                f"as many evenly spaced frames {curve.uniform[-1]:.1%}",
            )  # fmt: skip
    facts.add_row(
        "memory", f"{len(memory)} frames, {common.megabytes(memory.nbytes)}, {len(memory.candidates)} candidates"
        + (f", {memory.evicted} evicted" if memory.evicted else ""),
    )  # fmt: skip
    facts.add_row(
        "cost of a frame",
        f"median {report.cost_percentile_s(50) * 1e3:.2f} ms, 99 % within {report.cost_percentile_s(99) * 1e3:.2f} ms",
    )
    for name, counts in (("refused", report.refused), ("taken without", report.remarks)):
        for reason, count in counts.most_common():
            facts.add_row(
                name, Text(f"{count} {reason}: {what_to_do(reason, report.texts.get(reason, ''))}", style="yellow")
            )
    console.print(facts)
    if session.geometry is None and report.color_only and report.color_only == report.frames:
        console.print(Text(COLOR_ONLY, style="bold yellow"))
