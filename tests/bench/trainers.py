"""One measurement of `bench` in a process of its own: our loop, or mlx-lm's through its public API."""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from farense_qlora.model import cpu

cpu.enable()  # before any other import of mlx

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import mlx_lm
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tuner import trainer as mlx_lm_trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset
from mlx_lm.utils import get_total_parameters, load_tokenizer
from workloads import OURS, WORKLOADS, settings_of

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import Base, load_base, make_ready
from farense_qlora.model.download import MINIATURE
from farense_qlora.model.folder import GROUP_SIZE
from farense_qlora.model.machine import gflops
from farense_qlora.training.events import Stepped
from farense_qlora.training.loop import train


def main(name: str, trainer: str, updates: int, folder: Path, out: Path) -> None:
    """Measure `updates` updates of `trainer` on workload `name`, after a first one (0: that one); `out` gets
    the result."""
    run = _ours if trainer in OURS else _mlx_lm
    model, weights, steps = run(name, updates + 1, folder)
    flops, rate = model_flops(model), gflops()
    first, timed = steps[0], steps[1:] or steps
    seconds = median(step["seconds"] for step in timed)
    supervised, real, positions = (
        sum(step[key] for step in timed) / len(timed) for key in ("supervised", "real", "positions")
    )
    each = flops["token"] * real + flops["supervised"] * supervised
    peak = mx.get_peak_memory()
    result = {
        "supervised_tokens_per_s": supervised / seconds,
        "real_tokens_per_s": real / seconds,
        "padding_share": 1 - real / positions,
        "peak_memory_gb": peak / 1e9,
        "peak_beyond_weights_gb": (peak - weights) / 1e9,
        "process_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "seconds_to_first_step": first["ended"] - float(os.environ["FARENSE_BENCH_STARTED"]),
        "seconds_per_update": seconds,
        "sgemm_share": each / seconds / 1e9 / rate,
        "loss": timed[-1]["loss"],
    }
    out.write_text(json.dumps(result), encoding="utf-8")


def model_flops(model: nn.Module) -> dict[str, float]:
    """The floating-point operations of one update a real token and, in the head, a supervised token.

    A frozen matrix costs 2 a weight forwards and 2 backwards, a LoRA matrix 2 and 4. Attention between
    positions and everything element-wise are left out, and so is what is computed again or on padding.
    """
    frozen = adapter = 0
    for module in model.layers[0].modules():
        if isinstance(module, nn.QuantizedLinear):
            frozen += module.weight.size * 32 // module.bits
        elif isinstance(module, nn.Linear):
            frozen += module.weight.size
        elif "lora_a" in module:
            adapter += module.lora_a.size + module.lora_b.size
    layers = len(model.layers)
    head = model.args.vocab_size * model.args.hidden_size
    return {"token": layers * (4.0 * frozen + 6.0 * adapter), "supervised": 4.0 * head}


def random_model(shape: dict[str, int]) -> Model:
    """A Mistral of `shape` with random 4-bit weights, the same each time and as large as real ones."""
    model = Model(ModelArgs(model_type="mistral", rms_norm_eps=1e-5, tie_word_embeddings=False, **shape))
    nn.quantize(model, GROUP_SIZE, 4)
    for number, layer in enumerate(_quantized(model)):
        columns = layer.scales.shape[-1] * GROUP_SIZE
        layer.weight = mx.random.randint(0, 2**31 - 1, layer.weight.shape, mx.uint32, mx.random.key(number))
        layer.scales = mx.full(layer.scales.shape, 0.2 / columns**0.5)
        layer.biases = layer.scales * -7.5
    return model


def _quantized(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding)]


def _ours(name: str, updates: int, folder: Path) -> tuple[nn.Module, int, list[dict[str, float]]]:
    config = _config(name, folder, updates)
    if (shape := WORKLOADS[name].shape) is None:
        base = load_base(config)
    else:
        model = random_model(shape)
        make_ready(model)
        base = Base(
            model=model,
            tokenizer=load_tokenizer(MINIATURE),
            path=MINIATURE,
            name=name,
            bits=4,
            parameters=get_total_parameters(model),
            size_gb=0.0,
            load_seconds=0.0,
        )
    weights, steps = _weights(base.model), []
    mx.reset_peak_memory()
    for event in train(config, base, load_data(config, base), Path(tempfile.mkdtemp(dir=folder))):
        if isinstance(event, Stepped):
            steps.append(
                {
                    "seconds": event.seconds,
                    "supervised": event.supervised_tokens,
                    "real": event.tokens,
                    "positions": event.positions,
                    "loss": event.loss,
                    "ended": event.time,
                }
            )
    return base.model, weights, steps


def _mlx_lm(name: str, updates: int, folder: Path) -> tuple[nn.Module, int, list[dict[str, float]]]:
    config = _config(name, folder, updates)
    model, tokenizer = mlx_lm.load(str(MINIATURE if config.model == "mini" else config.model))[:2]
    if (shape := WORKLOADS[name].shape) is not None:
        model = random_model(shape)
    model.set_dtype(mx.float32)  # on the CPU 16-bit floats are slower still
    model.freeze()
    mx.eval(model.parameters())
    weights = _weights(model)
    attach(model, config)
    rows = [json.loads(line) for line in Path(config.train_data).read_text(encoding="utf-8").splitlines()]
    data = CacheDataset(ChatDataset(rows, tokenizer, mask_prompt=True))
    sizes: list[dict[str, float]] = []
    steps: list[dict[str, float]] = []

    def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
        """mlx-lm's own batches, of which the real tokens are counted: its mask has one of padding a row."""
        for batch, lengths in mlx_lm_trainer.iterate_batches(*arguments, **options, seed=config.seed):
            starts, ends = np.array(lengths).T
            real = {"supervised": float((ends - starts).sum()), "real": float((ends - 1).sum())}
            sizes.append({**real, "positions": float(batch[:, 1:].size)})
            yield batch, lengths

    class Watch(TrainingCallback):
        def on_train_loss_report(self, info: dict[str, float]) -> None:
            loss = {"loss": info["train_loss"], "seconds": 1 / info["iterations_per_second"]}
            steps.append({**sizes[len(steps)], **loss, "ended": time.time()})

    arguments = mlx_lm_trainer.TrainingArgs(
        batch_size=config.batch_size,
        iters=updates,
        steps_per_report=1,
        steps_per_save=updates + 1,
        max_seq_length=config.max_seq_length,
        adapter_file=str(folder / "adapters.safetensors"),
        grad_checkpoint=config.grad_checkpoint,
    )
    optimizer = optim.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    mx.reset_peak_memory()
    mlx_lm_trainer.train(
        model, optimizer, data, args=arguments, iterate_batches=counted, training_callback=Watch()
    )
    return model, weights, steps


def _config(name: str, folder: Path, updates: int) -> Config:
    never = {"eval_every": 10**6, "save_every": 10**6, "probes": 0, "max_steps": updates}
    files = {"train_data": str(folder / "train.jsonl"), "val_data": str(folder / "val.jsonl")}
    model = {}
    if WORKLOADS[name].real:
        sys.path.append(str(Path(__file__).parents[1] / "real"))
        from models import smollm2  # not at the top: the time to the first step counts from there

        model = {"model": str(smollm2())}
    return Config.of("mini", **{**settings_of(name), **never, **files, **model})


def _weights(model: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
