"""The bench beside the peers."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
