"""Plays a recording into the live node: ``ros2 launch spatial_mllm_ros replay.launch.py recording:=<path>``.

A rosbag2 is played by ``ros2 bag play`` where that is installed, with its clock and its own topics; everything else, and a
bag where it is not, by ``spatial-mllm play`` (pip install cyclonedds), in the namespace and on the topics that the node
listens to. Arguments of bringup.launch.py are arguments here, too.
"""

import shlex
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from spatial_mllm_ros.nodes.parameters import PARAMETERS, misspelt, values_from_text
from spatial_mllm_ros.nodes.replaying import player_arguments, settings_of

NODE_IS_UP_S = 3.0
FROM_FILE = "(as in params_file)"
ARGUMENTS = (
    ("recording", None, "a rosbag2, an RGB-D or TUM folder, a video, or rendered[:...]"),
    ("rate", "1.0", "how many times as fast as it was recorded"),
    ("stay", "true", "keep the node up when the recording ends"),
    ("player_arguments", "", "further arguments of the player, as --loop"),
)


def generate_launch_description() -> LaunchDescription:
    bringup = PathJoinSubstitution([FindPackageShare("spatial_mllm_ros"), "launch", "bringup.launch.py"])
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=about) for name, value, about in ARGUMENTS),
            OpaqueFunction(function=before),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(bringup)),
            OpaqueFunction(function=replay),
        ]
    )


def before(context: LaunchContext) -> list[Action]:
    """What the node must know of the player: a bag is played with its clock."""
    told: list[Action] = [LogInfo(msg=text) for text in misspelt(context.argv, [name for name, *_ in ARGUMENTS])]
    if _with_ros(context) and "use_sim_time" not in context.launch_configurations:
        told.append(SetLaunchConfiguration("use_sim_time", "true"))
    return told


def replay(context: LaunchContext) -> list[Action]:
    """The player, once the node is up."""
    values = context.launch_configurations
    recording, rate = values["recording"], values["rate"]
    if _with_ros(context):
        command = ["ros2", "bag", "play", recording, "--rate", rate, "--clock", *shlex.split(values["player_arguments"])]
    else:
        texts = {name: values[name] for name in PARAMETERS if values.get(name, FROM_FILE) != FROM_FILE}
        namespace = values["namespace"]
        settings = settings_of(Path(values["params_file"]), values["name"], namespace, values_from_text(texts))
        program = Path(get_package_prefix("spatial_mllm_ros"), "lib", "spatial_mllm_ros", "spatial-mllm")
        command = [str(program), "play", recording, "--rate", rate, *shlex.split(values["player_arguments"])]
        command += player_arguments(settings, namespace, values["use_sim_time"].lower() == "true")
    player = ExecuteProcess(cmd=command, output="screen")
    ended: list[Action] = [LogInfo(msg="The recording has ended.")]
    if values["stay"].lower() != "true":
        ended.append(Shutdown(reason="the recording has ended"))
    return [
        LogInfo(msg=f"playing: {shlex.join(command)}"),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=ended)),
        TimerAction(period=NODE_IS_UP_S, actions=[player]),
    ]


def _with_ros(context: LaunchContext) -> bool:
    """Whether ``ros2 bag play`` plays it."""
    return _is_bag(LaunchConfiguration("recording").perform(context)) and _installed("ros2bag")


def _is_bag(recording: str) -> bool:
    path = Path(recording)
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").exists()


def _installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
