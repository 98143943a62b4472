"""The training loop, its events, the run folder and the worker."""
