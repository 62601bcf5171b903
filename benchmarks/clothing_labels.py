"""Truth for clothing photos that have none or a coarse one: masks solved at their edges, official models' mattes."""

import cv2
import numpy as np
import pymatting
from scipy.sparse import diags
from scipy.sparse.linalg import cg

BAND_PX = 4  # on either side of a coarse mask's edge: superpixels are off by about so much at 400 pixels of width
PRIOR_WEIGHT = 0.01  # of the coarse mask within the band: enough that a band without colours to tell keeps its edge
CERTAIN = 0.95, 0.05
MIN_AGREEMENT = 0.95  # intersection over union of two models' mattes
FOREGROUND_SHARE = 0.05, 0.85  # of a photo, for a garment that is shown whole
MAX_SOFT = 0.12  # of the subject's area: where more is soft, the model was in doubt


def solve_edge(rgb, mask):
    """Return uint8 (H, W): a coarse mask whose edge was moved to the photo's, and is soft where the photo's is.

    `rgb`, `mask`: uint8 (H, W, 3) and (H, W). Closed-form matting (Levin et al., 2008) of the band around the edge
    alone, with the blurred mask as a weak prior, so that what is thinner than the band does not vanish.
    """
    coarse = mask >= 128
    band = _near_edge(coarse, BAND_PX)
    if not band.any():
        return np.where(coarse, 255, 0).astype(np.uint8)
    prior = cv2.GaussianBlur(coarse.astype(np.float64), (0, 0), BAND_PX / 2)
    known = ~band.ravel()
    laplacian = pymatting.cf_laplacian(rgb / 255.0, epsilon=1e-5, is_known=known).tocsr()
    rows = laplacian[~known]
    weights = np.full(rows.shape[0], PRIOR_WEIGHT)
    inside, outside = rows[:, ~known], rows[:, known]
    right = weights * prior.ravel()[~known] - outside @ coarse.ravel()[known].astype(np.float64)
    system = inside + diags(weights)
    solved, _ = cg(system, right, x0=prior.ravel()[~known], M=diags(1 / system.diagonal()), rtol=1e-4, maxiter=300)
    alpha = coarse.astype(np.float64).ravel()
    alpha[~known] = np.clip(solved, 0, 1)
    return np.rint(_contrasted(alpha.reshape(mask.shape)) * 255).astype(np.uint8)


def _near_edge(coarse, radius):
    inside, outside = (cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5) for side in (coarse, ~coarse))
    return ((coarse & (inside <= radius)) | (~coarse & (outside <= radius))) & (coarse.any() and not coarse.all())


def _contrasted(alpha):
    """Return alpha with what is nearly certain made so: closed-form mattes leave a haze."""
    high, low = CERTAIN
    return np.clip((alpha - low) / (high - low), 0, 1)


def agreement(matte, other):
    """Return the intersection over union of two mattes in [0, 1], at 0.5."""
    one, two = matte >= 0.5, other >= 0.5
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 0.0


def is_plausible(matte, other):
    """Tell whether two models agree on a garment that is shown whole, and the first, in [0, 1], is sure of it."""
    low, high = FOREGROUND_SHARE
    soft = np.count_nonzero((matte > 0.1) & (matte < 0.9)) <= MAX_SOFT * np.count_nonzero(matte >= 0.5)
    return soft and low <= matte.mean() <= high and agreement(matte, other) >= MIN_AGREEMENT
