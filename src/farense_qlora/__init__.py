"""Teach a 4-bit language model the history of Sporting Clube Farense: QLoRA on Apple's MLX."""

__version__ = "0.1.0"
