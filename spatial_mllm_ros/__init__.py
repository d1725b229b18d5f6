"""Ask a robot about the space it has seen; get a typed, metric answer with its evidence."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # the generated ROS 2 messages share this package's name
__version__ = "0.1.0"
