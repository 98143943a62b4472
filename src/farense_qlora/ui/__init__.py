"""Figures, widgets and the notebook: the only floor that draws."""
