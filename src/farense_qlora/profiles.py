"""The profiles: settings that go together, by model and memory; each says what differs from the defaults."""

from typing import Any

# What to load with 16 bits in place of a model that is published in 4, a quarter of the download.
SIXTEEN_BITS = {"mlx-community/Mistral-7B-Instruct-v0.3-4bit": "mistralai/Mistral-7B-Instruct-v0.3"}
MISTRAL_7B_16GB: dict[str, Any] = {
    "model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit",
    "batch_size": 1,
    "grad_accumulation_steps": 8,
    "answer_style": "sentences",
    "grad_checkpoint": True,
    "save_every": 100,
    "early_stopping_patience": 3,
}
PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "rank": 32,
        "alpha": 64.0,
        "epochs": 2.5,
        "batch_size": 16,
        "learning_rate": 8e-4,
        "lora_plus_ratio": 8.0,
        "max_seq_length": 128,
        "eval_every": 250,
        "save_every": 300,
    },
    # What `make real-long` measures: a small real model, in English for the most part.
    "smollm2": {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "bits": 16,  # in 4 a model this small loses too much: 4.2 nats a token, untrained, in place of 3.5
        "batch_size": 8,
        "learning_rate": 5e-4,
        "lora_plus_ratio": 8.0,
        "max_seq_length": 256,
        "eval_every": 250,
        "save_every": 300,
    },
    # For 16 GB; the other two differ from it in what decides the memory.
    "mistral-7b": MISTRAL_7B_16GB,
    "mistral-7b-8gb": {
        **MISTRAL_7B_16GB,
        "rank": 8,
        "alpha": 16.0,
        "num_layers": 16,
        "max_seq_length": 256,
    },
    "mistral-7b-32gb": {
        **MISTRAL_7B_16GB,
        "batch_size": 4,
        "grad_accumulation_steps": 2,
        "grad_checkpoint": False,
        "max_seq_length": 1024,
    },
}
