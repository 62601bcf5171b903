"""How a clip's numbers are colours: FFmpeg's codes of matrix, range, transfer and primaries (ISO/IEC 23091-2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

BT709 = 1
_RGB, UNSPECIFIED = 0, 2
_BT601 = 5
LIMITED, FULL = 1, 2
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
# Of a matrix in a clip: the number that swscale has for it
_SCALER_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_HIGHEST_SD = 576


def scaler_flags() -> int:
    """Return swscale's flags with which greys stay grey, and come out again as they went in.

    Its quick ways round down, and have neutral colours of the full range one level off.
    """
    from av.video.reformatter import Interpolation

    exact = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    return Interpolation.BILINEAR | exact


@dataclass(frozen=True)
class Colours:
    """What a clip says of its colours, each a code of FFmpeg's; `height`: of its frames, which decides what it leaves.

    Where it names no matrix, players take BT.601 for standard definition and BT.709 above, and so does this.
    """

    matrix: int
    range: int
    transfer: int
    primaries: int
    height: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colours:
        """Return those of a decoded frame."""
        is_full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
        return cls(frame.colorspace, FULL if is_full else LIMITED, frame.color_trc, frame.color_primaries, frame.height)

    @property
    def scaler_matrix(self) -> int:
        """The number of swscale's for the matrix."""
        guess = _BT601 if self.height <= _HIGHEST_SD else BT709
        return _SCALER_MATRICES.get(self.matrix, guess)

    @property
    def hdr(self) -> str | None:
        """The name of the transfer of high dynamic range, or None."""
        return _HDR_TRANSFERS.get(self.transfer)

    @property
    def written(self) -> Colours:
        """What a clip made of this one says: the same, but BT.709 where this is HDR or has RGB in it."""
        if self.hdr:
            return replace(self, matrix=BT709, range=LIMITED, transfer=BT709, primaries=BT709)
        return replace(self, matrix=BT709, range=LIMITED) if self.matrix == _RGB else self
