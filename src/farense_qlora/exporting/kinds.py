"""The formats of an export: the tool that reads each, and how near to the trained model it must be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What an export must reach: the least share of equal most likely tokens and of equal greedy answers, and
    the most that its divergence may be of the base model's."""

    top1: float
    answers: float
    of_base: float = 0.1


EXACT = Thresholds(top1=0.99, answers=0.95)
EIGHT_BITS = Thresholds(top1=0.98, answers=0.90)
FOUR_BITS = Thresholds(top1=0.90, answers=0.70)
# Of a model that computes in 16 bits two readers differ by rounding alone, in up to 2 of 100 tokens and 10 of
# 100 answers for bfloat16: there it is the divergence that tells.
ROUNDED = Thresholds(top1=0.97, answers=0.80)


@dataclass(frozen=True)
class Format:
    """`matrices` is the type of those of a GGUF file."""

    tool: str
    limits: Thresholds = EXACT
    matrices: str = "f16"


FORMATS = {
    "mlx": Format("mlx"),
    "peft": Format("peft"),
    "fused": Format("mlx"),
    "fused-4bit": Format("mlx", FOUR_BITS),
    "gguf": Format("llama"),
    "gguf-bf16": Format("llama", matrices="bf16"),
    "gguf-q8_0": Format("llama", EIGHT_BITS, "q8_0"),
    "gguf-q6_k": Format("llama", FOUR_BITS, "q6_k"),
    "gguf-q5_k_m": Format("llama", FOUR_BITS, "q5_k_m"),
    "gguf-q4_k_m": Format("llama", FOUR_BITS, "q4_k_m"),
    "gguf-lora": Format("llama"),
    "ollama": Format("llama"),
    "ollama-q8_0": Format("llama", EIGHT_BITS, "q8_0"),
    "ollama-q4_k_m": Format("llama", FOUR_BITS, "q4_k_m"),
}
