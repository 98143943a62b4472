"""What one does with a trained adapter: ask, evaluate, export."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
