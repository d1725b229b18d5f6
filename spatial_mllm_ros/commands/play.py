"""spatial-mllm play: a recording published as a camera would."""

from __future__ import annotations

from typing import Any

import click

from spatial_mllm_ros.commands import common, wire
from spatial_mllm_ros.scene.frame import Frame
from spatial_mllm_ros.session.open_source import open_source

EPILOG = f"""
\b
Examples:
  spatial-mllm play rendered                          a simulated robot's walk, in real time
  spatial-mllm play my_recording --loop --now
  spatial-mllm play my_bag --rate 2 --compressed      into spatial-mllm up --compressed
  spatial-mllm play my_room --clock                   into spatial-mllm up --use-sim-time

Published are camera/color/image_raw and camera_info, camera/aligned_depth_to_color/image_raw and camera_info, /tf
(fixed frame to base_link) and /tf_static (base_link to the camera's optical frame): what spatial-mllm up and the ROS 2
node listen to. Stamps are the recording's own, so that `spatial-mllm call --source SOURCE` knows its frames by name.
{wire.ROS_ARGS_HELP}
Exit code: 0 at the end or after SIGINT or SIGTERM, 1 when messages were dropped because a subscriber was too slow, 2 for
what is wrong with the command or the recording.
"""


def _pace(ctx: click.Context, param: click.Parameter, value: float) -> float:
    return common.finite(ctx, param, value)


@click.command(name="play", cls=wire.RosCommand, epilog=EPILOG, short_help="Publish a recording as a camera would.")
@click.argument("spec", metavar="SOURCE", default="rendered")
@click.option(
    "--rate", type=click.FloatRange(min=0), default=1.0, show_default=True, metavar="R", callback=_pace,
    help="Pace: 1 is real time, 2 twice that, 0 as fast as subscribers take it.",
)  # fmt: skip
@click.option("--loop", is_flag=True, help="Start over at the end, until stopped.")
@click.option("--now", is_flag=True, help="Stamps of now instead of the recording's own.")
@click.option("--clock", is_flag=True, help="Publish /clock, by the stamps.")
@click.option("--compressed", is_flag=True, help="Compressed images (JPEG, depth as PNG) instead of raw ones.")
@click.option("--best-effort", is_flag=True, help="Send images best effort, as many drivers do, instead of reliably.")
@click.option("--limit", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N frames.")
@click.option("--camera", default="camera", show_default=True, metavar="NAME", help="Namespace of the camera's topics.")
@click.option("--world-axes", is_flag=True, help="Poses as recorded, even where the recording knows a frame with z up.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="S",
    help="Wait at most S seconds for somebody who listens, and begin then in any case.",
)  # fmt: skip
@common.input_options
@click.option("--force", is_flag=True, help="Play even where somebody else publishes the same topics.")
@click.option("--json", "as_json", is_flag=True, help="At the end, what was published as JSON on stdout.")
@click.pass_context
def play_command(
    ctx: click.Context,
    *,
    spec: str,
    rate: float,
    loop: bool,
    now: bool,
    clock: bool,
    compressed: bool,
    best_effort: bool,
    limit: int,
    camera: str,
    world_axes: bool,
    wait_s: float,
    force: bool,
    as_json: bool,
    inputs: dict[str, Any],
    ros_args: tuple[str, ...],
) -> None:
    """Publish a recording as a camera and a localiser would: images, depth, CameraInfo and TF.

    SOURCE is a recording of any known layout, a bag, a video, or rendered[:options] (the default), a simulated house.
    """
    from spatial_mllm_ros.dds import DdsNode
    from spatial_mllm_ros.nodes.player import Player, PlayerOptions

    with wire.until_signal() as stop, wire.logging_to_stderr("camera_player", ros_args, "WARNING"):
        source = open_source(spec, inputs)
        if not as_json:
            common.say_chosen(source)
        try:
            options = PlayerOptions(compressed, not world_axes, now, rate, loop, clock, best_effort, camera)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with DdsNode("camera_player", ros_args=ros_args) as node:
            player = Player(node, source, options)
            stop.call(player.stop)
            taken = [] if force else player.taken()
            if taken:
                raise common.Failure(
                    f"somebody else publishes {', '.join(taken)} in domain {node.domain_id}: a recording mixed with a real "
                    "camera or robot makes nonsense of both. Play in another domain (ROS_DOMAIN_ID, also for the node), under "
                    "another name (--camera, or --ros-args -r /tf:=...), or --force"
                )
            if not player.wait_for_listener(wait_s) and not stop.is_set() and wait_s:
                common.say("nobody listens to the camera: playing in any case")
            expected = source.info.frames
            total = min(limit, expected) if limit and expected else (limit or expected)
            with common.progress_bar(f"playing {source.info.name}", quiet=as_json) as update:

                def on_frame(_: Frame) -> None:
                    update(player.frames, None if loop else total)
                    if limit and player.frames >= limit:
                        player.stop()

                if not stop.is_set():
                    player.play(on_frame)
            complete = player.finish()
            result = {
                "source": source.info.name,
                "frames": player.frames,
                "messages": player.sent,
                "not_sent": player.not_sent,
                "refused": dict(source.refused),
            }
        common.say_doubts(source.doubts)
        if as_json:
            common.print_json(result)
        else:
            common.say(
                f"published {player.frames} frames of {source.info.description or source.info.name}"
                + (f"; dropped {player.not_sent} messages that nobody took in time" if player.not_sent else "")
                + ("" if complete else "; a subscriber had not taken all of it when the player ended")
            )
        if player.not_sent:
            ctx.exit(1)
