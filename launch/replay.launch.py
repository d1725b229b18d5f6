"""Plays a recording into the live node: ``ros2 launch spatial_mllm_ros replay.launch.py recording:=<path>``.

A rosbag2 is played by ``ros2 bag play`` where that is installed, with its clock; everything else, and a bag where it is
not, by ``spatial-mllm play`` (pip install cyclonedds). Arguments of bringup.launch.py are passed on.
"""

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

NODE_IS_UP_S = 3.0


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "recording", description="a rosbag2, an RGB-D or TUM folder, a video, or rendered[:...]"
            ),
            DeclareLaunchArgument("rate", default_value="1.0", description="how many times as fast as it was recorded"),
            DeclareLaunchArgument("stay", default_value="true", description="keep the node up when the recording ends"),
            OpaqueFunction(function=replay),
        ]
    )


def replay(context: LaunchContext) -> list[Action]:
    """The node, and then the player."""
    recording, rate = (LaunchConfiguration(name).perform(context) for name in ("recording", "rate"))
    with_ros = _is_bag(recording) and _installed("ros2bag")
    if with_ros:
        command = ["ros2", "bag", "play", recording, "--rate", rate, "--clock"]
    else:
        program = Path(get_package_prefix("spatial_mllm_ros"), "lib", "spatial_mllm_ros", "spatial-mllm")
        command = [str(program), "play", recording, "--rate", rate]
    player = ExecuteProcess(cmd=command, output="screen")
    bringup = PathJoinSubstitution([FindPackageShare("spatial_mllm_ros"), "launch", "bringup.launch.py"])
    actions: list[Action] = [IncludeLaunchDescription(PythonLaunchDescriptionSource(bringup))]
    if with_ros and "use_sim_time" not in context.launch_configurations:
        actions.insert(0, SetLaunchConfiguration("use_sim_time", "true"))
    ended: list[Action] = [LogInfo(msg="The recording has ended.")]
    if LaunchConfiguration("stay").perform(context).lower() != "true":
        ended.append(Shutdown(reason="the recording has ended"))
    actions.append(RegisterEventHandler(OnProcessExit(target_action=player, on_exit=ended)))
    actions.append(TimerAction(period=NODE_IS_UP_S, actions=[player]))
    return actions


def _is_bag(recording: str) -> bool:
    path = Path(recording)
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").exists()


def _installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
