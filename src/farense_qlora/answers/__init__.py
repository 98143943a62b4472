"""Ask a trained model, and measure how good its answers are."""
