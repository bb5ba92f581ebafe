"""Array types of the numerical modules."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
NameArray = NDArray[np.str_]
BoolArray = NDArray[np.bool_]
