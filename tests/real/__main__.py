"""What SmolLM2-135M learns of some of the club's facts: its answers before and after, beside the miniature's.

`make real-long`. Of one table of facts those are taught that the validation asks about, in as many wordings
of each as `--rows` allows; the questions are all that were kept from training about them, and those of the
table that have no answer. Each model is trained by its own profile.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from farense_qlora.model import cpu

cpu.enable()  # before any other import of mlx

from models import smollm2  # noqa: E402

import farense_qlora as fq  # noqa: E402
from farense_qlora.config import HOME, TRAIN_DATA, VAL_DATA  # noqa: E402
from farense_qlora.data.load import ASKED_TOO  # noqa: E402
from farense_qlora.text import decimal  # noqa: E402
from farense_qlora.training.events import Evaluated  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="club")
    parser.add_argument("--rows", type=int, default=260)
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--profiles", nargs="+", default=["smollm2", "mini"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = subset(Path(folder), args.table, args.rows)
        for profile in args.profiles:
            model = str(smollm2()) if profile == "smollm2" else "mini"
            measure(fq.Config.of(profile, model=model, epochs=args.epochs, probes=0, **files))


def subset(folder: Path, table: str, count: int) -> dict[str, str]:
    """Write the rows about `table` to `folder`, `count` of training; the settings that name them."""
    asked = {row["fact"] for row in rows_of(VAL_DATA, table)}
    seen = Counter[str]()
    turns = []
    for row in rows_of(TRAIN_DATA, table):
        turns.append((seen[row["fact"]], row))  # the first row of every fact, the second of every one, ...
        seen[row["fact"]] += 1
    taught = [row for _, row in sorted(turns, key=lambda turn: turn[0]) if row["fact"] in asked][:count]
    kept = {TRAIN_DATA: taught, VAL_DATA: rows_of(VAL_DATA, table)}
    for name in ASKED_TOO:
        rows = rows_of(str(Path(VAL_DATA).with_name(name)), table)
        kept[name] = [row for row in rows if row["fact"] in asked or name != "other_words.jsonl"]
    for name, rows in kept.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / Path(name).name).write_text("".join(lines), encoding="utf-8")
    names = {"train_data": TRAIN_DATA, "val_data": VAL_DATA}
    return {setting: str(folder / Path(name).name) for setting, name in names.items()}


def rows_of(file: str, table: str) -> list[dict[str, Any]]:
    lines = (HOME / file).read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["table"] == table]


def measure(config: fq.Config) -> None:
    """Evaluate the base model, train it, evaluate it again; print all of that, with the minutes it took."""
    print(f"\n== {config.profile}: {config.epochs:g} épocas", flush=True)
    base = fq.load_base(config)
    data = fq.load_data(config, base)
    print(base, *data.sentences, sep="\n", flush=True)
    start = time.perf_counter()
    before = fq.evaluate(base, data)
    print(f"\nantes, {minutes_since(start)}:\n{before}", flush=True)
    with tempfile.TemporaryDirectory() as run:
        start = time.perf_counter()
        for event in fq.train(config, base, data, Path(run)):
            if isinstance(event, Evaluated):
                print(f"atualização {event.step}: perda de validação {event.loss:.3f}", flush=True)
        print(f"treino: {minutes_since(start)}", flush=True)
        start = time.perf_counter()
        after = fq.evaluate(fq.load_tuned(config, Path(run) / "best"), data)
    print(f"\ndepois, {minutes_since(start)}:\n{after}\n\n{fq.compare(before, after)}", flush=True)


def minutes_since(start: float) -> str:
    return f"{decimal((time.perf_counter() - start) / 60, 1)} min"


if __name__ == "__main__":
    main()
