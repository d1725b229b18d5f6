"""A node of ours with what talks to it, for the tests on ROS."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 20.0


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The first true value of the condition; fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s:.0f} s"
        time.sleep(0.02)


class Robot:
    """A node of ours, spun as its executable spins it, and another one beside it that calls it and listens to it."""

    def __init__(self, **parameters: Any) -> None:
        import rclpy
        from rclpy.executors import MultiThreadedExecutor
        from rclpy.parameter import Parameter

        from spatial_mllm_ros.nodes import ros_node

        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = ros_node.SpatialMllmNode(parameter_overrides=overrides)
        self.other = rclpy.create_node("bystander")
        self._stop = threading.Event()
        settings = self.node.settings()
        self._executors = [MultiThreadedExecutor(4 + settings.query_workers + settings.query_queue) for _ in range(2)]
        self._threads = []
        for node, executor in zip((self.node, self.other), self._executors, strict=True):
            executor.add_node(node)
            self._threads.append(threading.Thread(target=ros_node.spin, args=(node, executor, self._stop)))
            self._threads[-1].start()
        self._clients: dict[str, Any] = {}
        self.diagnostics: dict[str, Any] = {}
        self.logged: list[str] = []
        self.keyframes: list[Any] = []
        from diagnostic_msgs.msg import DiagnosticArray
        from rcl_interfaces.msg import Log
        from rclpy.qos import DurabilityPolicy, QoSProfile

        self.other.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        # rosout keeps what was logged for those who come late.
        kept = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.other.create_subscription(Log, "/rosout", lambda m: self.logged.append(m.msg), kept)

    @property
    def state(self) -> str:
        return str(self.node._state_machine.current_state[1])

    @property
    def engine(self) -> Any:
        return self.node.engine

    def call(self, service_type: Any, name: str, request: Any, timeout_s: float = WAIT_S) -> Any:
        """The response of a service."""
        return wait_for_future(self.send(service_type, name, request), timeout_s)

    def send(self, service_type: Any, name: str, request: Any) -> Any:
        """The future of the response of a service."""
        from rclpy.qos import QoSProfile

        if name not in self._clients:
            # By default a client keeps ten replies: of more questions at once, some answers would be lost.
            qos = QoSProfile(depth=1000)
            self._clients[name] = self.other.create_client(service_type, name, qos_profile=qos)
        client = self._clients[name]
        assert client.wait_for_service(WAIT_S), f"there is no service {name}"
        return client.call_async(request)

    def change(self, label: str) -> bool:
        """A transition of the lifecycle, as `ros2 lifecycle set` asks for it."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.call(ChangeState, "/spatial_mllm/change_state", request).success)

    def activate(self) -> None:
        assert self.change("configure")
        assert self.change("activate")

    def ask(self, question: str, **fields: Any) -> Any:
        from spatial_mllm_ros.srv import SpatialQuery

        return self.call(SpatialQuery, "spatial_query", SpatialQuery.Request(question=question, **fields))

    def set_parameter(self, name: str, value: Any) -> Any:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "/spatial_mllm/set_parameters", request).results[0]

    def listen_to_keyframes(self) -> None:
        """As one who comes late and wants the last ones."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        from spatial_mllm_ros.msg import Keyframes

        late = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.other.create_subscription(Keyframes, "/spatial_mllm/keyframes", self.keyframes.append, late)

    def diagnosis(self, name: str) -> str:
        """The latest message on /diagnostics about a part of the node."""
        return str(self.diagnostics[name].message) if name in self.diagnostics else ""

    def close(self) -> None:
        """End both nodes for good.

        One that is only left to the garbage collector takes /rosout along, later, from the next one of its name.
        """
        self._stop.set()
        for executor, thread in zip(self._executors, self._threads, strict=True):
            executor.create_task(lambda: None)
            thread.join(5.0)
            assert not thread.is_alive(), "an executor hangs"
        for executor in self._executors:
            executor.shutdown(1.0)
        self.node.destroy_node()
        self.other.destroy_node()
        del self.node, self.other, self._executors, self._threads
        self._clients.clear()
        gc.collect()

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnostics.update({s.name.removeprefix("spatial_mllm: "): s for s in message.status})


def wait_for_future(future: Any, timeout_s: float = WAIT_S) -> Any:
    wait_for(future.done, "an answer", timeout_s)
    return future.result()
