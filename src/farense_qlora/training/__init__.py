"""The training loop, its events, the run folder and the worker."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
