"""The base model in 4 bits, its adapters, its loss, and what makes both fast."""
