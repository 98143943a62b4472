"""`python tests/bench`: training speed and memory beside mlx-lm.

Prints two tables, and writes `bench.json` and `bench.png`.
"""

import argparse
import json
from pathlib import Path

from bars import bench_bars
from tqdm import tqdm
from workloads import USUAL, WORKLOADS, bench, measured_table, ratios_table, report

from farense_qlora.config import OUTPUT


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=USUAL, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--to", type=Path, default=OUTPUT / "bench", metavar="FOLDER")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: at least 1")
    with tqdm(bar_format="{desc} ({elapsed})", leave=False) as bar:
        results = bench(args.workload, args.rounds, bar.set_description_str)
    args.to.mkdir(parents=True, exist_ok=True)
    (args.to / "bench.json").write_text(json.dumps(report(results), indent=2) + "\n", encoding="utf-8")
    bench_bars(results).savefig(args.to / "bench.png")
    print(measured_table(results), ratios_table(results), f"in {args.to}", sep="\n\n")


if __name__ == "__main__":
    main()
