"""Check the documentation: `python docs/check [--write] [--only NOME ...] [--page PARTE]`."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import pages

sys.path.insert(0, str(pages.ROOT / "src"))
sys.path.insert(0, str(pages.ROOT / "tests" / "bench"))

import blocks
import generated
import messages
import spelling

CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "ligações": pages.check_links,
    "comprimento": pages.check_length,
    "repetições": pages.check_duplicates,
    "ortografia": spelling.check_spelling,
    "gerado": generated.check_generated,
    "erros": messages.check_messages,
    "blocos": blocks.check_blocks,
}


def main() -> int:
    """Run the checks; 0 when none found anything."""
    parser = argparse.ArgumentParser(prog="python docs/check", description="Verifica a documentação.")
    parser.add_argument("--write", action="store_true", help="escreve de novo as partes geradas e as figuras")
    parser.add_argument(
        "--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="só estas verificações"
    )
    parser.add_argument("--page", default="", help="corre só os blocos das páginas com isto no nome")
    args = parser.parse_args()
    if args.write:
        generated.write()
        return 0
    failed = 0
    for name in args.only:
        start = time.perf_counter()
        found = list(blocks.check_blocks(args.page) if name == "blocos" else CHECKS[name]())
        print(
            f"{name}: {f'{len(found)} problemas' if found else 'bem'} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
        for problem in found:
            print(f"  {problem}", flush=True)
        failed += len(found)
    for page, line in generated.unmeasured():
        print(f"por medir: {pages.named(page)}:{line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
