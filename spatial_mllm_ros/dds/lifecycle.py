"""A node's life in states (https://design.ros2.org/articles/node_lifecycle.html), and the services that drive it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from spatial_mllm_ros.dds.workers import WorkerPool

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode


class State(IntEnum):
    """The states of lifecycle_msgs/msg/State; those from 10 on last while a transition goes on."""

    UNKNOWN = 0
    UNCONFIGURED = 1
    INACTIVE = 2
    ACTIVE = 3
    FINALIZED = 4
    CONFIGURING = 10
    CLEANINGUP = 11
    SHUTTINGDOWN = 12
    ACTIVATING = 13
    DEACTIVATING = 14
    ERRORPROCESSING = 15

    @property
    def label(self) -> str:
        """As ``ros2 lifecycle get`` prints it."""
        return self.name.lower()


class Result(Enum):
    """How a callback ended. FAILURE: back to where it began; ERROR, as when it raises: on to on_error."""

    SUCCESS = 0
    FAILURE = 1
    ERROR = 2


class Transition(NamedTuple):
    """One of lifecycle_msgs/msg/Transition."""

    id: int
    label: str
    start: State
    goal: State


_RESULT_LABELS = ("transition_success", "transition_failure", "transition_error")
_U, _I, _A, _F, _E = State.UNCONFIGURED, State.INACTIVE, State.ACTIVE, State.FINALIZED, State.ERRORPROCESSING

REQUESTED = (
    Transition(1, "configure", _U, State.CONFIGURING),
    Transition(2, "cleanup", _I, State.CLEANINGUP),
    Transition(3, "activate", _I, State.ACTIVATING),
    Transition(4, "deactivate", _A, State.DEACTIVATING),
    Transition(5, "shutdown", _U, State.SHUTTINGDOWN),
    Transition(6, "shutdown", _I, State.SHUTTINGDOWN),
    Transition(7, "shutdown", _A, State.SHUTTINGDOWN),
)
"""What can be asked for."""
_GOALS = {
    State.CONFIGURING: (10, (_I, _U, _E)),
    State.CLEANINGUP: (20, (_U, _I, _E)),
    State.ACTIVATING: (30, (_A, _I, _E)),
    State.DEACTIVATING: (40, (_I, _A, _E)),
    State.SHUTTINGDOWN: (50, (_F, _F, _E)),
    State.ERRORPROCESSING: (60, (_U, _F, _F)),
}
FOLLOWING = {
    (state, result): Transition(first + result.value, _RESULT_LABELS[result.value], state, goals[result.value])
    for state, (first, goals) in _GOALS.items()
    for result in Result
}
"""What a callback's result leads to."""


class LifecycleCallbacks(Protocol):
    """What a node does in its transitions. Called one at a time."""

    def on_configure(self) -> Result: ...
    def on_cleanup(self) -> Result: ...
    def on_activate(self) -> Result: ...
    def on_deactivate(self) -> Result: ...
    def on_shutdown(self, previous: State) -> Result: ...
    def on_error(self, previous: State) -> Result: ...


class Lifecycle:
    """The state machine, and its services and topic below the node's name."""

    def __init__(self, node: DdsNode, callbacks: LifecycleCallbacks) -> None:
        self._node = node
        self._callbacks = callbacks
        self._state = State.UNCONFIGURED
        self._changing = threading.RLock()
        # Alone in its pool, so that a configure that takes long does not keep get_state from answering.
        self._pool = WorkerPool(1, 8, f"{node.name.name}-lifecycle")
        self._events = node.create_publisher("lifecycle_msgs/msg/TransitionEvent", "~/transition_event")
        node.create_service("lifecycle_msgs/srv/GetState", "~/get_state", self._get_state)
        node.create_service("lifecycle_msgs/srv/GetAvailableStates", "~/get_available_states", self._get_states)
        node.create_service(
            "lifecycle_msgs/srv/GetAvailableTransitions",
            "~/get_available_transitions",
            lambda _: self._transitions(self.available()),
        )
        node.create_service(
            "lifecycle_msgs/srv/GetAvailableTransitions",
            "~/get_transition_graph",
            lambda _: self._transitions([*REQUESTED, *FOLLOWING.values()]),
        )
        node.create_service(
            "lifecycle_msgs/srv/ChangeState",
            "~/change_state",
            self._change_state,
            pool=self._pool,
            busy=lambda _: self._changed(False),
            failed=lambda _request, _error: self._changed(False),
        )

    @property
    def state(self) -> State:
        """Where the node is now."""
        return self._state

    def available(self) -> list[Transition]:
        """What can be asked for in the present state."""
        return [transition for transition in REQUESTED if transition.start == self._state]

    def configure(self) -> bool:
        """Whether the node could be configured."""
        return self.change("configure")

    def activate(self) -> bool:
        """Whether the node could be activated."""
        return self.change("activate")

    def change(self, wanted: str | int) -> bool:
        """Make a transition, given by its label or number; whether it led where it should.

        False also when there is no such transition from the present state.
        """
        with self._changing:
            for transition in self.available():
                if wanted in (transition.id, transition.label):
                    return self._make(transition)
            names = ", ".join(t.label for t in self.available()) or "nothing"
            self._node.logger.warning(
                "%s: %s is not possible in state %s, only %s", self._node.name.full, wanted, self._state.label, names
            )
            return False

    def shutdown(self) -> bool:
        """Make the shutdown transition, from whichever state; True when the node is finalised already."""
        with self._changing:
            return self._state == State.FINALIZED or self.change("shutdown")

    def close(self) -> None:
        """End the thread of transitions. The services go with the node."""
        self._pool.close()

    def _make(self, transition: Transition) -> bool:
        previous = transition.start
        calls: dict[State, Callable[[], Result]] = {
            State.CONFIGURING: self._callbacks.on_configure,
            State.CLEANINGUP: self._callbacks.on_cleanup,
            State.ACTIVATING: self._callbacks.on_activate,
            State.DEACTIVATING: self._callbacks.on_deactivate,
            State.SHUTTINGDOWN: lambda: self._callbacks.on_shutdown(previous),
            State.ERRORPROCESSING: lambda: self._callbacks.on_error(previous),
        }
        self._go(transition)
        following = FOLLOWING[self._state, self._call(calls[self._state])]
        succeeded = following.label == _RESULT_LABELS[Result.SUCCESS.value]
        self._go(following)
        if self._state == State.ERRORPROCESSING:
            self._go(FOLLOWING[self._state, self._call(calls[self._state])])
        return succeeded

    def _call(self, callback: Callable[[], Result]) -> Result:
        try:
            return callback()
        except Exception:  # a callback that raises is an error by the design of managed nodes
            self._node.logger.exception("%s failed while %s", self._node.name.full, self._state.label)
            return Result.ERROR

    def _go(self, transition: Transition) -> None:
        self._state = transition.goal
        make = self._node.message
        event = make(
            "lifecycle_msgs/msg/TransitionEvent",
            timestamp=time.time_ns(),
            transition=make("lifecycle_msgs/msg/Transition", id=transition.id, label=transition.label),
            start_state=self._state_message(transition.start),
            goal_state=self._state_message(transition.goal),
        )
        self._events.publish(event)

    def _state_message(self, state: State) -> Any:
        return self._node.message("lifecycle_msgs/msg/State", id=int(state), label=state.label)

    def _get_state(self, _: Any) -> Any:
        return self._node.message(
            "lifecycle_msgs/srv/GetState_Response", current_state=self._state_message(self._state)
        )

    def _get_states(self, _: Any) -> Any:
        states = [self._state_message(state) for state in State]
        return self._node.message("lifecycle_msgs/srv/GetAvailableStates_Response", available_states=states)

    def _transitions(self, transitions: list[Transition]) -> Any:
        make = self._node.message
        described = [
            make(
                "lifecycle_msgs/msg/TransitionDescription",
                transition=make("lifecycle_msgs/msg/Transition", id=transition.id, label=transition.label),
                start_state=self._state_message(transition.start),
                goal_state=self._state_message(transition.goal),
            )
            for transition in transitions
        ]
        return make("lifecycle_msgs/srv/GetAvailableTransitions_Response", available_transitions=described)

    def _change_state(self, request: Any) -> Any:
        wanted = request.transition.label or int(request.transition.id)
        return self._changed(self.change(wanted))

    def _changed(self, success: bool) -> Any:
        return self._node.message("lifecycle_msgs/srv/ChangeState_Response", success=success)
