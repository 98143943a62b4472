"""The base model in 4 bits, adapters, the fast operations and the miniature."""

from .blas import use_fast_blas

use_fast_blas()  # before anything below imports mlx
