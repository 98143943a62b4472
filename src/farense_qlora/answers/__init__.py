"""Ask a trained model, and measure how good its answers are."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
