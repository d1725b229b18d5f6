"""spatial-mllm up: the live node without ROS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.status import Status

from spatial_mllm_ros.commands import common, wire
from spatial_mllm_ros.nodes.diagnosis import GeometryStatus
from spatial_mllm_ros.nodes.parameters import PARAMETERS, ParameterError, help_text

log = logging.getLogger(__name__)
REFRESH_S = 0.5

EPILOG = f"""
\b
Examples:
  spatial-mllm up                                     with a camera on camera/color/image_raw, or spatial-mllm play
  spatial-mllm up --compressed --fixed-frame map
  spatial-mllm up --static                            one camera on a desk, without any pose
  spatial-mllm up --model Diankun/Spatial-MLLM-v1.1-Instruct-135K     answers free-form questions, too
  spatial-mllm up --params-file my.yaml --ros-args -r __ns:=/robot -r camera/color/image_raw:=front/image
  spatial-mllm up --parameters                        every parameter, with its meaning

To ROS 2 nodes on Cyclone DDS (RMW_IMPLEMENTATION=rmw_cyclonedds_cpp) it is one of theirs: ros2 node, topic, service,
param and lifecycle work on it. Installing ROS 2 is not needed; `spatial-mllm call` asks it.
{wire.ROS_ARGS_HELP}
Exit code: 0 after SIGINT, SIGTERM or the shutdown transition, 2 when it cannot be started or configured.
"""

# Options for what is set most often: (option, parameter).
COMMON = (
    ("--color-topic", "color_topic"),
    ("--depth-topic", "depth_topic"),
    ("--camera-info-topic", "camera_info_topic"),
    ("--depth-unit", "depth_unit_m"),
    ("--image-frame", "image_frame"),
    ("--pose-topic", "pose_topic"),
    ("--fixed-frame", "fixed_frame"),
    ("--sensor-model", "sensor_model"),
    ("--level", "level"),
    ("--max-frames", "max_frames"),
    ("--max-memory-mib", "max_memory_mib"),
    ("--keyframes-count", "keyframes_count"),
    ("--timeout", "timeout_s"),
    ("--reader", "reader"),
    ("--base-frame", "base_frame"),
    ("--time-zone", "time_zone"),
    ("--own-words", "own_words"),
    ("--model", "model"),
    ("--model-precision", "model_precision"),
    ("--model-encoder-runtime", "model_encoder_runtime"),
    ("--model-encoder-file", "model_encoder_file"),
    ("--rgb-geometry", "rgb_geometry"),
)


def _common_options(command: Any) -> Any:
    for option, name in reversed(COMMON):
        p = PARAMETERS[name]
        text = p.description.split(". ")[0].rstrip(".")
        command = click.option(
            option, name, metavar=p.type_name.upper(), help=f"{text} (default: {p.yaml()}).", default=None
        )(command)
    return command


@click.command(
    name="up",
    cls=wire.RosCommand,
    epilog=EPILOG,
    short_help="The live node: remembers what a camera sees, and answers.",
)
@_common_options
@click.option("--compressed", is_flag=True, help="Take compressed images and depth instead of raw ones.")
@click.option("--static", is_flag=True, help="The camera does not move, and needs no pose.")
@click.option("--use-sim-time", is_flag=True, help="Take the time from /clock (spatial-mllm play --clock, simulators).")
@click.option(
    "--params-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="ROS 2 parameter file; config/spatial_mllm.yaml has every parameter.",
)
@click.option("--manual", is_flag=True, help="Stay unconfigured until a lifecycle manager configures and activates it.")
@click.option("--parameters", "list_parameters", is_flag=True, help="List every parameter and exit.")
@click.pass_context
def up_command(
    ctx: click.Context,
    *,
    compressed: bool,
    static: bool,
    use_sim_time: bool,
    params_file: Path | None,
    manual: bool,
    list_parameters: bool,
    ros_args: tuple[str, ...],
    **given: str | None,
) -> None:
    """Remember the space that a camera sees, live, and answer questions about it, without ROS installed.

    Takes images, depth, CameraInfo and TF from the network, publishes ~/keyframes and /diagnostics, and serves
    spatial_query, as the ROS 2 node does.
    """
    if list_parameters:
        click.echo(help_text("spatial-mllm up"), nl=False)
        return
    from spatial_mllm_ros.nodes.dds_node import NODE_NAME, SpatialMllmDdsNode

    with wire.until_signal() as stop:
        if params_file is not None:
            ros_args = ("--ros-args", "--params-file", str(params_file), "--", *ros_args)
        defaults = {"auto_activate": not manual}
        with wire.logging_to_stderr(NODE_NAME, ros_args):
            try:
                values = _values(given, compressed, static, use_sim_time)
                node = SpatialMllmDdsNode(ros_args, values, defaults=defaults, interrupted=stop.is_set)
            except ParameterError as error:
                raise common.Failure(common.printable(str(error))) from error
            with node:
                if node.parameters.get("auto_activate"):
                    if not node.start() and not stop.is_set():
                        raise common.Failure(common.printable(f"the node cannot be configured: {node.failure}"))
                else:
                    log.info("%s is unconfigured: configure and activate it", node.full_name)
                _watch(node, stop)
                log.info("shutting down%s", f" ({stop.by})" if stop.by else "")


def _values(given: dict[str, str | None], compressed: bool, static: bool, use_sim_time: bool) -> dict[str, Any]:
    """Parameters by the plain options."""
    values: dict[str, Any] = {name: PARAMETERS[name].parse(text) for name, text in given.items() if text is not None}
    if compressed:
        values |= {"color_transport": "compressed", "depth_transport": "compressedDepth"}
    if static:
        values["static"] = True
    if use_sim_time:
        values["use_sim_time"] = True
    return values


def _watch(node: Any, stop: wire.Stop) -> None:
    """Until ``stop``, or the node is finalised; on a terminal with a line that says how it goes."""
    console = common.err()
    if not console.is_terminal:
        while not wire.wait(stop, REFRESH_S) and node.state.name != "FINALIZED":
            pass
        return
    _redirect_log(console)
    with Status("", console=console, spinner="dots") as line:
        while not wire.wait(stop, REFRESH_S) and node.state.name != "FINALIZED":
            line.update(status_line(node))


def status_line(node: Any) -> str:
    """How a node goes, in one line."""
    engine = node.engine
    if engine is None:
        return f"{node.full_name}: {node.state.label}"
    status = engine.status()
    rates = [f"{s.stream.kind.value} {s.rate_hz:.0f} Hz" for s in status.streams if s.stream.kind.value in _SHOWN]
    queries = [q for q in (status.queries, status.model_queries) if q is not None]
    answered, running = sum(sum(q.answered.values()) for q in queries), sum(q.running for q in queries)
    dropped = sum(s.dropped for s in status.streams)
    refused = sum(status.refused.values()) + sum(n for s in status.streams for n in s.refused.values())
    parts = [
        f"{node.full_name}: {node.state.label}",
        ", ".join(rates),
        f"{status.frames} frames, {common.megabytes(status.nbytes)}",
        f"{answered} answered" + (f", {running} at work" if running else ""),
        geometry_words(status.geometry),
        f"model {status.model.state}" if status.model is not None else "",
        f"{dropped} dropped" if dropped else "",
        f"{refused} refused" if refused else "",
    ]
    return " | ".join(filter(None, parts))


def geometry_words(status: GeometryStatus | None) -> str:
    """Geometry from color, for the status line."""
    if status is None:
        return ""
    if status.process.state in ("failed", "restarting"):
        return f"geometry {status.process.state}"
    scale = status.images.scale
    return f"geometry of {status.images.windows} windows, " + (f"± {scale.stddev:.1%}" if scale.known else "no metres")


_SHOWN = ("color", "depth", "tf")


def _redirect_log(console: Console) -> None:
    """The log goes through the console, which keeps its last line for the status."""
    for handler in logging.getLogger("spatial_mllm_ros").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(_Lines(console))


class _Lines:
    """A stream for a log handler that prints above the status line."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> None:
        if text.strip():
            self._console.print(text.rstrip("\n"), markup=False, soft_wrap=True)

    def flush(self) -> None:
        pass
