"""A folder of images and nothing else, or of images with 16-bit PNGs of depth beside them."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from spatial_mllm_ros.scene.inputs import Doubt, InputSettings
from spatial_mllm_ros.sources.calibration import read_camera
from spatial_mllm_ros.sources.image_files import IMAGE_SUFFIXES, depth_file, is_depth_png, is_image
from spatial_mllm_ros.sources.layouts.entries import Entry, Listing, OneCamera, no_camera, told
from spatial_mllm_ros.sources.layouts.layout import Layout, ordered
from spatial_mllm_ros.sources.layouts.times import times_of
from spatial_mllm_ros.sources.source import SourceError
from spatial_mllm_ros.sources.stamps import natural_key

_TEXT = (".txt", ".csv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".md", ".log", "")
"""Files that lie beside images and are none."""


def read(folder: Path, settings: InputSettings) -> Listing:
    """Images in the order in which people count, turned upright by their EXIF tags. A PNG of 16 bits with one channel is
    the depth of the image that has its name, or its number. With intrinsics.txt or camera.yaml they have a camera model
    (and are not turned). frames.csv tells stamps by name; else names with a stamp in them do; else they are counted.
    """
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    paths = sorted((path for path in files if is_image(path)), key=lambda path: natural_key(path.name))
    depths = [path for path in paths if is_depth_png(path)]
    images = [path for path in paths if path not in set(depths)]
    if not images:
        raise SourceError(
            f"{folder} holds {len(depths)} PNGs of 16 bits with one channel, which are depth, and no images beside them"
        )
    depth_of = _pairs(images, depths)
    left = Counter(depth_without_image=len(depths) - len(depth_of))
    key = {path: path.stem for path in images}
    if len(set(key.values())) < len(images):  # a.jpg and a.png are two images
        key = {path: path.name for path in images}
    times = times_of(folder, list(key.values()), settings)
    images = [path for path in images if key[path] in times.stamps]
    calibrated = (folder / "intrinsics.txt").exists() or (folder / "camera.yaml").exists()
    camera = OneCamera(partial(read_camera, folder)) if calibrated else no_camera
    return Listing(
        kind="folder of images",
        entries=[
            Entry(
                name=key[path],
                aliases=(path.name,),
                stamp_ns=times.stamps[key[path]],
                color=path.read_bytes,
                depth=depth_file(depth_of[path]) if path in depth_of else None,
                camera=camera,
            )
            for path in images
        ],
        upright=not calibrated,
        chosen=(times.words, *([f"{len(depth_of)} PNGs of 16 bits are depth"] if depth_of else [])),
        doubts=told(times.doubt, _unread(folder, files)),
        refused=times.missing + left,
    )


def _pairs(images: list[Path], depths: list[Path]) -> dict[Path, Path]:
    """The depth of each image: that of the same name, else that of the same number, where numbers are told once."""
    by_name = {path.stem.lower(): path for path in depths}
    pairs = {path: by_name[path.stem.lower()] for path in images if path.stem.lower() in by_name}
    if pairs or not depths:
        return pairs
    numbers = [re.findall(r"\d+", path.stem)[-1:] for path in depths]
    by_number = {int(found[0]): path for found, path in zip(numbers, depths, strict=True) if found}
    for path in images:
        found = re.findall(r"\d+", path.stem)[-1:]
        if found and int(found[0]) in by_number:
            pairs[path] = by_number[int(found[0])]
    unique = len(by_number) == len(depths) and len(set(pairs.values())) == len(pairs)
    return pairs if unique else {}


def _unread(folder: Path, files: list[Path]) -> Doubt | None:
    """Told, so that no file is dropped in silence."""
    others = Counter(p.suffix.lower() for p in files if not is_image(p) and p.suffix.lower() not in _TEXT)
    folders = [path.name for path in ordered(folder, "*") if path.is_dir() and not path.name.startswith(".")]
    if not others and not folders:
        return None
    what = [f"{count} {suffix}" for suffix, count in others.most_common(5)] + [
        f"the folder {name}/" for name in folders[:5]
    ]
    return Doubt(
        kind="unread_files",
        text=f"of {folder.name} only the images are read, not {', '.join(what)}",
        remedy="name the folder or file that you mean, or convert the files to .jpg or .png",
    )


LAYOUT = Layout(
    name="folder of images (.jpg, .png, .heic …)", needs=(tuple(f"*{suffix}" for suffix in IMAGE_SUFFIXES),), read=read
)
