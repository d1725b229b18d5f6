"""Imports go one direction, heavy libraries are loaded only where they are needed, and every one used is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "spatial_mllm_ros"
ROOT = Path(__file__).resolve().parents[1]

# Top to bottom. A room imports from itself and from the floors below, not from its neighbours on the same floor.
FLOORS = (
    ("cli",),
    ("commands",),
    ("visualisation", "bench", "learning"),
    ("clients",),
    ("nodes",),
    ("session",),
    ("answering",),
    ("perception",),
    ("simulation",),
    ("memory",),
    ("sources",),
    ("models",),
    ("serving",),
    ("language",),
    ("queries",),
    ("scene",),
    ("dds",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ONLY_IN = {  # where a library may be imported, at module level or later: in modules whose path starts so
    "rclpy": "nodes/ros",
    "cyclonedds": "dds/",
}
# Where it is not the distribution's own name.
IMPORTED_AS = {"opencv-python-headless": "cv2", "scikit-image": "skimage", "pyyaml": "yaml", "backports.zstd": "backports"}
FROM_ROS = {  # what a sourced ROS 2 environment has, and pip has not
    *("action_msgs", "ament_index_python", "builtin_interfaces", "cv_bridge", "geometry_msgs", "launch", "launch_ros"),
    *("lifecycle_msgs", "message_filters", "nav_msgs", "rcl_interfaces", "rclpy", "sensor_msgs", "std_msgs"),
    *("tf2_geometry_msgs", "tf2_msgs", "tf2_ros", "visualization_msgs"),
}
WITH_TORCH = ("models", "bench")  # rooms whose modules may import torch and transformers when they are imported
GENERATED = {"msg", "srv", "action"}  # rooms that colcon adds


@dataclass(frozen=True)
class Import:
    """``module`` imported in ``file`` (relative to the package) at ``line``; ``early``: by importing the file alone."""

    file: Path
    line: int
    module: str
    early: bool

    @property
    def room(self) -> str:
        """The room that imports."""
        return self.file.parts[0].removesuffix(".py")

    @property
    def library(self) -> str:
        """The top-level package that is imported."""
        return self.module.partition(".")[0]

    @property
    def imported_room(self) -> str:
        """The room that is imported, or '' for the package itself and for libraries."""
        return self.module.split(".")[1] if self.module.startswith(PACKAGE + ".") else ""

    def __str__(self) -> str:
        return f"{PACKAGE}/{self.file}:{self.line}: imports {self.module}"


def imports_in(source: str, file: Path) -> list[Import]:
    """The imports in the text of a module, apart from those that only a type checker sees."""
    return list(_walk(ast.parse(source), file, early=True))


def is_module(name: str) -> bool:
    """Whether the package has a module of this dotted name."""
    path = ROOT.joinpath(*name.split("."))
    return name.startswith(PACKAGE + ".") and (path.is_dir() or path.with_suffix(".py").is_file())


def _walk(node: ast.AST, file: Path, early: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.orelse:
            yield from _walk(child, file, early)
        return
    if isinstance(node, ast.Import):
        yield from (Import(file, node.lineno, alias.name, early) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = [PACKAGE, *file.parent.parts][: len(file.parent.parts) + 2 - node.level] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        # from spatial_mllm_ros.scene import pose, Pose: a module of that room, and what its __init__ offers
        names = [f"{module}.{alias.name}" for alias in node.names]
        modules = {name if module == PACKAGE or is_module(name) else module for name in names}
        yield from (Import(file, node.lineno, name, early) for name in sorted(modules))
    inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, early and not inside_function)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    folder = ROOT / PACKAGE
    found = [
        found
        for path in sorted(folder.rglob("*.py"))
        for found in imports_in(path.read_text(encoding="utf-8"), path.relative_to(folder))
    ]
    assert found, f"no modules under {folder}"
    return found


def broken(imports: list[Import]) -> str:
    return "\n".join(map(str, imports))


def goes_up(found: Import) -> bool:
    """Whether an import leaves its room without going down."""
    room = found.imported_room
    if room in ("", "__version__", found.room) or found.room == "__main__":
        return False
    if room in GENERATED:
        return found.room != "nodes"
    return FLOOR.get(room, -1) <= FLOOR.get(found.room, -1)


def test_every_module_is_in_a_known_room(imports: list[Import]) -> None:
    unknown = sorted({f.room for f in imports} - set(FLOOR) - {"__init__", "__main__"})
    assert not unknown, f"rooms without a floor: {unknown}; put them in FLOORS"


def test_imports_go_down(imports: list[Import]) -> None:
    wrong = [found for found in imports if goes_up(found)]
    assert not wrong, f"imports that do not go down the house:\n{broken(wrong)}"


def test_dds_knows_nothing_of_the_package(imports: list[Import]) -> None:
    """ROS 2 on the wire is of use to others, too."""
    wrong = [f for f in imports if f.room == "dds" and f.imported_room not in ("", "dds")]
    assert not wrong, f"dds imports nothing else of the package:\n{broken(wrong)}"


def test_serving_never_imports_torch(imports: list[Import]) -> None:
    wrong = [f for f in imports if f.room == "serving" and f.library in ("torch", "transformers")]
    assert not wrong, f"serving talks to a process that has torch:\n{broken(wrong)}"


def test_models_import_one_direction(imports: list[Import]) -> None:
    order = ("weights", "vggt", "onnx", "mllm", "worker")
    rank = {name: number for number, name in enumerate(order)}
    wrong = [
        f
        for f in imports
        if f.room == "models" and len(f.file.parts) > 2 and f.imported_room == "models" and len(f.module.split(".")) > 3
        if rank[f.module.split(".")[2]] > rank[f.file.parts[1]]
    ]
    assert not wrong, f"arrows up among {order}:\n{broken(wrong)}"


def test_files_form_no_circles(imports: list[Import]) -> None:
    """What a module needs to be imported must not need that module."""
    modules = {found.file.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for found in imports}
    needs: dict[str, set[str]] = {module: set() for module in modules}
    for found in (f for f in imports if f.early):
        target = found.module.removeprefix(PACKAGE + ".")
        source = found.file.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        if target in modules and target != source:
            needs[source].add(target)
    TopologicalSorter(needs).prepare()  # its CycleError names the files


def test_scene_uses_numpy_and_scipy_only(imports: list[Import]) -> None:
    allowed = {PACKAGE, "numpy", "scipy", *sys.stdlib_module_names}
    wrong = [found for found in imports if found.room == "scene" and found.library not in allowed]
    assert not wrong, f"scene is geometry alone:\n{broken(wrong)}"


def test_queries_use_the_standard_library_only(imports: list[Import]) -> None:
    """What can be asked is for clients too, which have neither numpy nor the engine."""
    allowed = {PACKAGE, *sys.stdlib_module_names}
    wrong = [f for f in imports if f.room == "queries" and (f.library not in allowed or f.imported_room == "scene")]
    assert not wrong, f"queries are the standard library alone:\n{broken(wrong)}"


@pytest.mark.parametrize(("library", "module"), ONLY_IN.items())
def test_middleware_stays_in_its_shell(imports: list[Import], library: str, module: str) -> None:
    """The engine runs without ROS: only the shell around it may know the middleware."""
    wrong = [f for f in imports if f.library == library and not f.file.as_posix().startswith(module)]
    assert not wrong, f"{library} belongs into {module}* alone:\n{broken(wrong)}"


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_models_are_loaded_late(imports: list[Import], library: str) -> None:
    """A node without a model must not wait for these, nor need them."""
    wrong = [f for f in imports if f.library == library and f.early and f.room not in WITH_TORCH]
    assert not wrong, f"{library} at module level outside {WITH_TORCH}:\n{broken(wrong)}"


def test_every_library_is_declared(imports: list[Import]) -> None:
    declared = set(re.findall(r'"([A-Za-z0-9_.-]+?)[<>=].*?"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    known = {IMPORTED_AS.get(name.lower(), name.replace("-", "_")) for name in declared}
    known |= {PACKAGE, *sys.stdlib_module_names, "compression"}  # compression: from Python 3.14 on
    wrong = [f for f in imports if f.library not in known and not (f.library in FROM_ROS and f.room == "nodes")]
    assert not wrong, f"not among the dependencies of pyproject.toml:\n{broken(wrong)}"


def test_the_engine_starts_light() -> None:
    """Importing the engine loads no model library, no image library and no middleware."""
    code = f"import {PACKAGE}.answering.engine, sys; print(*sorted({{'torch', 'cv2', 'rclpy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], f"importing {PACKAGE}.answering.engine loads {run.stdout}"


@pytest.mark.parametrize(
    ("room", "source", "up"),
    [
        ("scene", "import spatial_mllm_ros.queries.answer", True),
        ("scene", "from spatial_mllm_ros.memory import track", True),
        ("scene", "from spatial_mllm_ros import answering", True),
        ("scene", "from ..answering import answer", True),
        ("scene", "from . import pose", False),
        ("scene", "def f():\n    from spatial_mllm_ros.memory import track", True),
        ("answering", "from spatial_mllm_ros.scene.pose import Pose", False),
        ("visualisation", "import spatial_mllm_ros.bench", True),
        ("answering", "from spatial_mllm_ros.msg import Keyframe", True),
        ("nodes", "from spatial_mllm_ros.msg import Keyframe", False),
        ("answering", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import spatial_mllm_ros.cli", False),
    ],
)
def test_this_test_sees_what_goes_up(room: str, source: str, up: bool) -> None:
    assert any(goes_up(found) for found in imports_in(source, Path(room, "module.py"))) == up


def test_this_test_tells_early_from_late() -> None:
    source = "import torch\nclass A:\n    import torch\n    def f(self):\n        import torch\n"
    assert [found.early for found in imports_in(source, Path("answering/module.py"))] == [True, True, False]
