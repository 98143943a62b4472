"""Take a trained adapter elsewhere: formats, their verification in the tools that read them, cards."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
