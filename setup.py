"""Everything about this package is in pyproject.toml; here only: the wheel carries the interface definitions too."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithInterfaces(build_py):
    """Copies msg/, srv/ and action/ to spatial_mllm_ros/interfaces/, where the node without rclpy reads them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # they are found beside the package
            return
        for folder in ("msg", "srv", "action"):
            target = Path(self.build_lib, "spatial_mllm_ros", "interfaces", folder)
            self.mkpath(str(target))
            for definition in sorted(Path(folder).glob(f"*.{folder}")):
                self.copy_file(str(definition), str(target / definition.name))


setup(cmdclass={"build_py": BuildWithInterfaces})
