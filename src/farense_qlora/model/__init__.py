"""The base model in 4 bits, adapters, the fast operations and the miniature."""

import os

from .blas import use_fast_blas

# Both before anything below imports mlx: the BLAS, and a frontier wide enough for streams side by side.
use_fast_blas()
os.environ.setdefault("MLX_BFS_MAX_WIDTH", "2000")
