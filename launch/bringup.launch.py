"""Starts the live node, configures and activates it.

Every parameter of the node is an argument, too: ``ros2 launch spatial_mllm_ros bringup.launch.py --show-args``.
An argument that is not given leaves the value to the params_file. An empty string is written as ``depth_topic:="''"``.
"""

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from spatial_mllm_ros.nodes.parameters import launch_arguments, misspelt, values_from_text

FROM_FILE = "(as in params_file)"
OF_THE_LAUNCH = (
    ("params_file", PathJoinSubstitution([FindPackageShare("spatial_mllm_ros"), "config", "spatial_mllm.yaml"]),
     "YAML file of parameters"),
    ("namespace", "", "namespace of the node and of relative topics"),
    ("name", "spatial_mllm", "name of the node"),
    ("use_sim_time", "false", "take the time from /clock, for simulations and recordings"),
    ("autostart", "true", "configure and activate the node; false leaves both to a lifecycle manager"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(name, default_value=default, description=about)
                 for name, default, about in OF_THE_LAUNCH]  # fmt: skip
    # auto_activate is for starting without a launch file.
    arguments += [DeclareLaunchArgument(name, default_value=FROM_FILE, description=about)
                  for name, about in launch_arguments() if name != "auto_activate"]  # fmt: skip
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Action]:
    """The node with the arguments that were given, and the events that take it to active."""
    texts = {
        name: LaunchConfiguration(name).perform(context) for name, _ in launch_arguments() if name != "auto_activate"
    }
    known = [*texts, *(name for name, *_ in OF_THE_LAUNCH)]
    told = [LogInfo(msg=text) for text in misspelt(context.argv, known)]
    given = values_from_text({name: text for name, text in texts.items() if text != FROM_FILE})
    node = LifecycleNode(
        package="spatial_mllm_ros",
        executable="spatial_mllm_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {"use_sim_time": LaunchConfiguration("use_sim_time").perform(context).lower() == "true", **given},
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        emulate_tty=True,
    )
    if LaunchConfiguration("autostart").perform(context).lower() != "true":
        return [*told, node]
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[_change(node, Transition.TRANSITION_ACTIVATE)],
            handle_once=True,  # later transitions are somebody else's wish
        )
    )
    failed = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="unconfigured",
            entities=[LogInfo(msg="The node could not be configured: its log above says why.")],
        )
    )
    # The handlers come first, so that no transition is missed.
    return [*told, activate, failed, node, _change(node, Transition.TRANSITION_CONFIGURE)]


def _change(node: LifecycleNode, transition: int) -> EmitEvent:
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))
