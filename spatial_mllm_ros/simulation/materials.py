"""Colors and procedural textures of surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TEXELS = 256  # edge of a texture, a power of two so that repeating is a bit mask

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (178, 48, 44),
    "orange": (214, 120, 46),
    "yellow": (222, 188, 74),
    "green": (82, 134, 78),
    "teal": (52, 128, 128),
    "blue": (62, 98, 162),
    "purple": (120, 82, 142),
    "pink": (208, 136, 148),
    "white": (232, 230, 224),
    "grey": (142, 144, 148),
    "black": (44, 44, 48),
    "brown": (126, 86, 56),
    "beige": (208, 188, 156),
}


@dataclass(frozen=True)
class Material:
    """What a surface looks like, and whether a depth camera sees it.

    texture: a kind that ``texture()`` knows. rgb: its main color. metres: edge of one texture tile. seed: varies it.
    glow: a light source, drawn without shading. measurable: False for glass and black screens, which return no depth.
    """

    texture: str
    rgb: tuple[int, int, int]
    metres: float = 1.0
    seed: int = 0
    glow: bool = False
    measurable: bool = True


def texture(material: Material) -> NDArray[np.uint8]:
    """The tile of a material, uint8 RGB [TEXELS, TEXELS, 3]; it repeats without seams except where it shows one thing.

    Row 0 is the lower edge.
    """
    rng = np.random.default_rng([material.seed, 7])
    image = _PAINTERS[material.texture](np.array(material.rgb, dtype=np.float64), rng)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, scale_u: float, scale_v: float | None = None) -> NDArray[np.float64]:
    """Seamless smooth noise of mean 0 and deviation 1; scales are blob sizes in texels along u and v."""
    base = _blobs(scale_u, scale_v or scale_u, int(rng.integers(3)))
    return np.roll(base, tuple(rng.integers(0, TEXELS, 2).tolist()), axis=(0, 1))


@lru_cache(maxsize=64)  # a house has a hundred materials: shifted copies of a few tiles are as good, and there at once
def _blobs(scale_u: float, scale_v: float, variant: int) -> NDArray[np.float64]:
    f = np.fft.fftfreq(TEXELS)
    fu, fv = np.meshgrid(f, f)
    keep = np.exp(-4 * ((fu * scale_u) ** 2 + (fv * scale_v) ** 2))
    white = np.random.default_rng(variant).standard_normal((TEXELS, TEXELS))
    n = np.real(np.fft.ifft2(np.fft.fft2(white) * keep))
    return (n - n.mean()) / n.std()


def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    v, u = np.mgrid[0:TEXELS, 0:TEXELS]
    return u, v


def _tint(rgb: NDArray[np.float64], brightness: NDArray[np.float64]) -> NDArray[np.float64]:
    return rgb * brightness[..., None]


def _plain(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _tint(rgb, 1 + 0.015 * _noise(rng, 2) + 0.02 * _noise(rng, 40))


def _plaster(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _tint(rgb, 1 + 0.025 * _noise(rng, 3) + 0.03 * _noise(rng, 30))


def _wallpaper(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    count = int(rng.choice([4, 8]))
    step = TEXELS // count
    if rng.random() < 0.5:
        pattern = np.where((u // (step // 2)) % 2 == 0, 1.0, 0.90)
    else:
        shift = ((v // step) % 2) * (step // 2)
        du, dv = (u + shift) % step - step / 2, v % step - step / 2
        pattern = np.where(np.abs(du) + np.abs(dv) < step * 0.22, 0.82, 1.0)
    return _tint(rgb, pattern + 0.02 * _noise(rng, 3) + 0.02 * _noise(rng, 30))


def _planks(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    rows = 8
    row = v * rows // TEXELS
    start = rng.integers(0, TEXELS, rows)[row]
    end = (u + start) % TEXELS
    tone = rng.normal(1.0, 0.09, (rows, 2))[row, (end < TEXELS // 2).astype(int)]
    gap = (v % (TEXELS // rows) < 1) | (end % (TEXELS // 2) < 1)
    return _tint(rgb, np.where(gap, 0.5, tone + 0.06 * _noise(rng, 60, 2) + 0.03 * _noise(rng, 8, 2)))


def _tiles(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    n = 4
    step = TEXELS // n
    tone = rng.normal(1.0, 0.05, (n, n))[v // step, u // step]
    grout = (u % step < 3) | (v % step < 3)
    return _tint(rgb, np.where(grout, 0.68, tone + 0.03 * _noise(rng, 6)))


def _checker(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    step = TEXELS // 4
    dark = (u // step + v // step) % 2 == 0
    return _tint(rgb, np.where(dark, 0.55, 1.0) + 0.03 * _noise(rng, 5))


def _carpet(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    edge = np.minimum(np.minimum(u, TEXELS - 1 - u), np.minimum(v, TEXELS - 1 - v))
    ring = (edge // 12) % 3
    motif = np.abs((u % 64) - 32) + np.abs((v % 64) - 32)
    second = rgb[[2, 0, 1]]
    image = np.where(((ring == 1) & (edge < 48))[..., None], second, np.broadcast_to(rgb, (TEXELS, TEXELS, 3)))
    image = np.where(((edge >= 48) & (motif < 16))[..., None], 0.5 * second + 60, image)
    return image * (1 + 0.08 * _noise(rng, 1.5))[..., None]


def _wood(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    rings = np.sin(_noise(rng, 120, 12) * 5)
    return _tint(rgb, 1 + 0.06 * rings + 0.05 * _noise(rng, 40, 1.5))


def _fabric(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    weave = 0.04 * ((u // 2 + v // 2) % 2) - 0.02
    return _tint(rgb, 1 + weave + 0.05 * _noise(rng, 2) + 0.04 * _noise(rng, 25))


def _stripes(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, _ = _grid()
    light = 0.5 * rgb + 110
    return np.where(((u // 16) % 2 == 0)[..., None], rgb, light) * (1 + 0.04 * _noise(rng, 2))[..., None]


def _books(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    image = np.empty((TEXELS, TEXELS, 3))
    colors = np.array(list(COLORS.values()), dtype=np.float64)
    at = 0
    while at < TEXELS:
        end = min(TEXELS, at + int(rng.integers(9, 24)))
        color = colors[rng.integers(len(colors))] * rng.uniform(0.7, 1.05)
        image[:, at:end] = color
        band = int(rng.integers(40, 190))
        image[band : band + int(rng.integers(8, 40)), at + 2 : end - 2] = 255 - 0.6 * color
        image[:, at : at + 1] *= 0.45
        at = end
    return image * (1 + 0.03 * _noise(rng, 3))[..., None]


def _painting(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    image = np.broadcast_to(0.5 * rgb + 90, (TEXELS, TEXELS, 3)).copy()
    image += (v / TEXELS - 0.5)[..., None] * rng.uniform(-80, 80, 3)
    colors = np.array(list(COLORS.values()), dtype=np.float64)
    for _ in range(int(rng.integers(7, 13))):
        cu, cv = rng.uniform(20, TEXELS - 20, 2)
        size, turn = rng.uniform(12, 60), rng.uniform(0, np.pi)
        x = (u - cu) * np.cos(turn) + (v - cv) * np.sin(turn)
        y = (v - cv) * np.cos(turn) - (u - cu) * np.sin(turn)
        inside = np.maximum(abs(x), 2 * abs(y)) < size if rng.random() < 0.5 else np.hypot(x, 1.4 * y) < size
        image[inside] = colors[rng.integers(len(colors))]
    edge = np.minimum(np.minimum(u, TEXELS - 1 - u), np.minimum(v, TEXELS - 1 - v))
    image[edge < 12] = (70, 52, 38)
    return image * (1 + 0.04 * _noise(rng, 3))[..., None]


def _view(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    up = v[..., None] / TEXELS
    image = np.array([238.0, 244, 250]) * (1 - up) + np.array([150.0, 196, 240]) * up
    image += np.clip(_noise(rng, 50, 18) - 0.5, 0, 1)[..., None] * 60
    hill = 60 + 22 * np.sin(2 * np.pi * (u / TEXELS + rng.random())) + 10 * np.sin(6 * np.pi * u / TEXELS)
    image = np.where((v < hill)[..., None], np.array([104.0, 142, 92]) * (1 + 0.1 * _noise(rng, 6))[..., None], image)
    edge = np.minimum(np.minimum(u, TEXELS - 1 - u), np.minimum(v, TEXELS - 1 - v))
    image[(edge < 9) | (abs(u - TEXELS / 2) < 5)] = (236, 236, 232)
    return image


def _screen(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    u, v = _grid()
    image = _tint(rgb, 1 + 0.1 * (u + v) / TEXELS)
    for row in range(40, 220, 14):
        image[row : row + 4, 24 : int(rng.integers(60, 230))] += rng.uniform(30, 110)
    return image


def _cardboard(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    _, v = _grid()
    image = _tint(rgb, 1 + 0.04 * _noise(rng, 30, 2) + 0.02 * _noise(rng, 2))
    image[abs(v - TEXELS / 2) < 14] = (200, 180, 130)
    image[40:90, 40:110] = (235, 232, 225)
    image[50:80:8, 48:100] = (60, 60, 60)
    return image


def _leaves(rgb: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return _tint(rgb, np.clip(1 + 0.3 * _noise(rng, 7), 0.35, 1.6))


_PAINTERS = {
    "plain": _plain,
    "plaster": _plaster,
    "wallpaper": _wallpaper,
    "planks": _planks,
    "tiles": _tiles,
    "checker": _checker,
    "carpet": _carpet,
    "wood": _wood,
    "fabric": _fabric,
    "stripes": _stripes,
    "books": _books,
    "painting": _painting,
    "view": _view,
    "screen": _screen,
    "cardboard": _cardboard,
    "leaves": _leaves,
}
