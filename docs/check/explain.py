"""The arithmetic that explains QLoRA: what a model takes, what 4 bits lose."""

import numpy as np
import pandas as pd

from farense_qlora.config import Config
from farense_qlora.model.folder import GROUP_SIZE
from farense_qlora.training.cost import MISTRAL_7B, Shape, weights_gb

BITS = (2, 3, 4, 6, 8)


def all_parameters(shape: Shape = MISTRAL_7B) -> int:
    """With those that are not quantized: two norms a block, and one at the end."""
    return shape.parameters + (2 * shape.layers + 1) * shape.hidden


def memory(shape: Shape = MISTRAL_7B, rank: int = 16) -> pd.DataFrame:
    """What each method keeps besides activations for a model of `shape`, in GB (10^9 bytes).

    Base weights take 2 bytes, or 4 bits and their scales; what is trained takes 4 bytes, its gradients 4 and
    its two moments 8.
    """
    adapter, everything = shape.trainable(Config(rank=rank)), all_parameters(shape)
    norms, trained = 2e-9 * (everything - shape.parameters), 1e-9 * np.array([everything, adapter, adapter])
    columns = {
        "base congelada": [0, weights_gb(shape, 16) + norms, weights_gb(shape, 4) + norms],
        "parâmetros treinados": 4 * trained,
        "gradientes e momentos": 12 * trained,
    }
    return pd.DataFrame(columns, index=["afinação completa", "LoRA", "QLoRA"])


def rounding_error(bits: int) -> float:
    """How far normally distributed weights lie from their quantized form: root mean square, as a share of
    their standard deviation."""
    weights, back = there_and_back(bits)
    return float(np.sqrt(np.mean((weights - back) ** 2)) / weights.std())


def there_and_back(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights like those of a layer, in groups (1024, 64), and what is left of them after quantization."""
    import mlx.core as mx

    weights = np.random.default_rng(0).normal(0, 0.02, (64, 1024)).astype(np.float32)
    parts = mx.quantize(mx.array(weights), group_size=GROUP_SIZE, bits=bits)
    back = np.array(mx.dequantize(*parts, group_size=GROUP_SIZE, bits=bits))
    return weights.reshape(-1, GROUP_SIZE), back.reshape(-1, GROUP_SIZE)
