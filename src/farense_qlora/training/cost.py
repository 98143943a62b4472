"""What a config will cost, estimated from the shapes in the model's config.json: no weight is read.

Good enough to warn while someone drags a slider; `fit` measures, and what it measured calibrates this.
"""

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from ..config import CACHE, Config
from ..data.batches import make_sampler
from ..data.load import MOST, SHARE, known_lengths
from ..data.sources import size
from ..errors import UserError
from ..files import atomic_write
from ..model.download import local_folder
from ..text import decimal

MEASURED = CACHE / "fit.json"
FAMILIES = ("mistral", "llama", "qwen2", "qwen3")  # whose blocks have the seven linear layers of `linears`
BYTES_PER_TOKEN = 3.3  # of Portuguese
JSON_BYTES = 150  # about, of a row in JSON that are not its text
PROCESS_GB = 0.16  # Python and the libraries, which count where memory is the process's (the CPU)
HEAD_GB = 0.032  # the chunk of logits and its copies, see model/loss.py


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes that decide the cost of a model of the families above."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    def linears(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layers of a block, by name."""
        attention, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, attention),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (attention, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """The parameters that are quantized: linear layers, embedding and head."""
        block = sum(inputs * outputs for inputs, outputs in self.linears().values())
        return self.layers * block + 2 * self.vocab * self.hidden

    def depth(self, config: Config) -> int:
        """How many layers `config` adapts, counted from the last."""
        return self.layers if config.num_layers == -1 else min(config.num_layers, self.layers)

    def trainable(self, config: Config) -> int:
        """The parameters of the adapter: `rank * (inputs + outputs)` for each adapted linear layer (Hu et
        al., 2021, «LoRA»)."""
        block = sum(sum(self.linears()[name]) for name in self.adapted(config))
        return config.rank * block * self.depth(config)

    def adapted(self, config: Config) -> list[str]:
        """The linear layers of a block that `config` adapts."""
        return [name for name in self.linears() if not config.target_modules or name in config.target_modules]


# Known before it is downloaded.
MISTRAL_7B = Shape(
    layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_dim=128, vocab=32768
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`trainable` parameters, `rows` of training data, updates in an epoch and in all, the peak of memory in
    GB and the seconds of the training; None where the model or the data are not here yet, or `fit` has not
    measured the time. The updates are `exact` where the rows have been tokenized before."""

    trainable: int | None = None
    rows: int | None = None
    updates_per_epoch: int | None = None
    updates: int | None = None
    exact: bool = False
    peak_gb: float | None = None
    seconds: float | None = None


def estimate(config: Config, on_cpu: bool) -> Estimate:
    """The cost of `config`, in a millisecond; raises `UserError` when its data cannot be read."""
    known, shape = size(config.train_data), shape_of(config.model)
    rows = each = updates = seconds = lengths = None
    tokens = float(config.max_seq_length)
    if known:
        stored, rows = known
        text = stored / rows
        if config.train_data.endswith((".json", ".jsonl")):
            text = max(text / 3, text - JSON_BYTES)
        tokens = text / BYTES_PER_TOKEN
        if not config.val_data:  # some become the validation set
            rows -= min(MOST, max(1, round(SHARE * rows)))
        each = ceil(rows / (config.batch_size * config.grad_accumulation_steps))
        if (lengths := known_lengths(config)) is not None:
            each = make_sampler(config, lengths).updates_per_epoch
        updates = min(max(1, round(config.epochs * each)), config.max_steps or sys.maxsize)
    if shape is None:
        return Estimate(rows=rows, updates_per_epoch=each, updates=updates, exact=lengths is not None)
    peak = peak_gb(shape, config, tokens, on_cpu)
    measured = _measured().get(_key(config))
    if measured and updates:
        then = Config.parse(measured["config"])
        peak = max(peak / 2, peak + measured["peak_gb"] - peak_gb(shape, then, tokens, on_cpu))
        seconds = updates * measured["seconds"] * _work(config, tokens) / _work(then, tokens)
    return Estimate(
        trainable=shape.trainable(config),
        rows=rows,
        updates_per_epoch=each,
        updates=updates,
        exact=lengths is not None,
        peak_gb=peak,
        seconds=seconds,
    )


def memory_warning(cost: Estimate, limit_gb: float) -> str | None:
    """What to say, in Portuguese, of a training that is estimated to take more memory than `limit_gb`."""
    if cost.peak_gb is None or cost.peak_gb <= limit_gb:
        return None
    estimated = f"previsão de {decimal(cost.peak_gb, 1)} GB para {decimal(limit_gb, 1)}"
    return (
        f"não cabe na memória desta máquina ({estimated}): baixe o lote ou o comprimento máximo, ligue "
        "«Recalcular ativações», ou meça com «fit», que propõe o que cabe"
    )


def shape_of(model: str) -> Shape | None:
    """The shape of `model` if it is here (or Mistral-7B) and of a family that we know."""
    file = _config_file(model)
    if file is None:
        return MISTRAL_7B if "mistral-7b" in model.lower() else None
    about = _read(file)
    if about.get("model_type") not in FAMILIES:
        return None
    try:
        hidden, heads = about["hidden_size"], about["num_attention_heads"]
        return Shape(
            layers=about["num_hidden_layers"],
            hidden=hidden,
            intermediate=about["intermediate_size"],
            heads=heads,
            kv_heads=about.get("num_key_value_heads", heads),
            head_dim=about.get("head_dim") or hidden // heads,
            vocab=about["vocab_size"],
        )
    except (KeyError, TypeError):
        return None


def download_gb(config: Config) -> float:
    """What of the model is to be downloaded, in GB; 0 where it is here, or its size is not known before."""
    shape = shape_of(config.model)
    return weights_gb(shape, config.bits) if shape and not _config_file(config.model) else 0.0


def peak_gb(shape: Shape, config: Config, tokens: float, on_cpu: bool) -> float:
    """The memory, in GB, of the largest micro-batch of rows of `tokens` tokens on average.

    Weights in groups of 64 with a scale and a bias; the adapter, its gradient and Adam's two moments in 32
    bits; and per token what the backward pass needs: in each layer two norms with their inputs, q, k, v, the
    attention and three vectors of the MLP, or with checkpointing the input of each layer and all of one. On a
    GPU also what the adapters read, in 32 bits, and the scores of the attention twice, which Metal does not
    fuse when it trains; what it really takes there we have not measured.
    """
    number = 4 if on_cpu else 2  # bytes
    weights = weights_gb(shape, config.bits, number)
    if on_cpu and shape.parameters < 50e6:
        weights += 4 * shape.parameters / 1e9  # small models keep them in float32 too: see model/cpu/ops.py
    positions, window = _micro_batch(config, tokens, on_cpu)
    layer: float = number * (6 * shape.hidden + 4 * shape.heads * shape.head_dim + 4 * shape.intermediate)
    layer += number * shape.heads * window * (1 if on_cpu else 2)
    if not on_cpu:
        adapted = (shape.linears()[name][0] for name in shape.adapted(config))
        layer += 4 * sum(adapted)
    depth = shape.depth(config)
    kept = depth * number * shape.hidden + 2 * layer if config.grad_checkpoint else depth * layer
    adapter = 4 * 4 * shape.trainable(config)
    return weights + (adapter + positions * kept) / 1e9 + HEAD_GB + (PROCESS_GB if on_cpu else 0.0)


def weights_gb(shape: Shape, bits: int, number: int = 2) -> float:
    """What the weights take, in GB; `number` is the bytes of what of them is no integer."""
    return (bits / 8 + 2 * number / 64 if bits < 16 else number) * shape.parameters / 1e9


def _micro_batch(config: Config, tokens: float, on_cpu: bool) -> tuple[float, float]:
    """The positions of the largest micro-batch, and the length of its windows: see data/batches.py."""
    longest, rows = config.max_seq_length, config.batch_size
    row = min(longest, 2 * tokens)  # the longer ones of those that lie together
    if not config.packing:
        return rows * row, row
    window = row if on_cpu else longest
    return min(rows * longest, max(window, rows * config.grad_accumulation_steps * tokens)), window


def remember(config: Config, peak_gb: float, seconds: float) -> None:
    """Keep what `fit` measured of `config`: its peak of memory and the seconds of an update."""
    about = {"config": config.model_dump(mode="json"), "peak_gb": peak_gb, "seconds": seconds}
    known = {**_measured(), _key(config): about}
    with suppress(UserError), atomic_write(MEASURED) as path:  # only the estimates would have been better
        path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def _measured() -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
        return known
    except (OSError, ValueError):
        return {}


def _key(config: Config) -> str:
    return f"{config.model}, {config.bits} bits"


def _work(config: Config, tokens: float) -> float:
    """How much there is to compute in an update, in proportion: with checkpointing a third more."""
    rows = config.batch_size * config.grad_accumulation_steps
    return rows * min(config.max_seq_length, tokens) * (4 / 3 if config.grad_checkpoint else 1)


def _config_file(model: str) -> Path | None:
    """The config.json of `model`, if it is on this machine."""
    if folder := local_folder(model):
        file = folder / "config.json"
        return file if file.is_file() else None
    cached = try_to_load_from_cache(model, "config.json") if model.count("/") == 1 else None
    return Path(cached) if isinstance(cached, str) else None


@lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return about
