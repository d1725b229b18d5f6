"""The log of a program on /rosout, where ROS 2 collects those of all nodes."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from spatial_mllm_ros.dds.clock import time_message

if TYPE_CHECKING:
    from spatial_mllm_ros.dds.node import DdsNode

LOG = "rcl_interfaces/msg/Log"


class RosoutHandler(logging.Handler):
    """Publishes records as rcl_interfaces/msg/Log. Add it to a logger, and remove it before the node is closed.

    ROS 2's levels have the same numbers as Python's.
    """

    def __init__(self, node: DdsNode, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._node = node
        self._publisher = node.create_publisher(LOG, "/rosout", "rosout")
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a record, but not one that publishing itself leads to."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            message = self._node.message(
                LOG,
                stamp=time_message(self._node, int(record.created * 1e9)),
                level=min(record.levelno // 10 * 10, logging.CRITICAL),
                name=self._node.name.full.strip("/").replace("/", "."),
                msg=self.format(record),
                file=record.pathname,
                function=record.funcName or "",
                line=record.lineno,
            )
            self._publisher.publish(message)
        except Exception:  # noqa: BLE001 - as every handler of the logging module does
            self.handleError(record)
        finally:
            self._busy.now = False

    def close(self) -> None:
        """Stop publishing."""
        self._publisher.close()
        super().close()
