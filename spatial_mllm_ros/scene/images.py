"""Images that stay compressed until somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A compressed color image (JPEG, PNG) as it came from the camera, decoded on demand.

    Geometry never looks at color, so most frames are never decoded, and a memory full of JPEG is ten times smaller.

    data: the compressed bytes.
    decoder: bytes -> uint8 RGB [height, width, 3]; raises ValueError when they do not decode.
    """

    data: bytes
    decoder: Callable[[bytes], NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def decode(self) -> NDArray[np.uint8]:
        return self.decoder(self.data)
