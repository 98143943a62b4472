"""Figures, widgets and the notebook: the only floor that draws."""

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
