"""Arrays by their dtype, for signatures; their shapes and ranges stand in docstrings."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Uint8: TypeAlias = npt.NDArray[np.uint8]
Uint16: TypeAlias = npt.NDArray[np.uint16]
Uint8Or16: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
Int64: TypeAlias = npt.NDArray[np.int64]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.floating]
Bools: TypeAlias = npt.NDArray[np.bool_]
