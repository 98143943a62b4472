"""Check the documentation: `python docs/check [--write] [--only ...] [--page PARTE] [--trained PASTA]`."""

import argparse
import sys
from pathlib import Path

import pages

sys.path.insert(0, str(pages.ROOT / "src"))
sys.path.insert(0, str(pages.ROOT / "tests" / "bench"))

import blocks
import generated
import messages


def main() -> int:
    """Run the checks; 0 when none found anything."""
    checks = {
        "comprimento": pages.check_length,
        "repetições": pages.check_duplicates,
        "ortografia": pages.check_spelling,
        "gerado": generated.check_generated,
        "erros": messages.check_messages,
        "blocos": lambda: blocks.check_blocks(args.page, args.trained),
    }
    parser = argparse.ArgumentParser(prog="python docs/check", description="Verifica a documentação.")
    parser.add_argument("--write", action="store_true", help="escreve de novo as partes geradas e as figuras")
    parser.add_argument("--only", nargs="+", choices=checks, default=[*checks], help="só estas verificações")
    parser.add_argument("--page", default="", help="corre só os blocos das páginas com isto no nome")
    parser.add_argument("--trained", type=Path, metavar="PASTA", help="um treino da miniatura, já feito")
    args = parser.parse_args()
    if args.write:
        generated.write()
        return 0
    failed = False
    for name in args.only:
        found = list(checks[name]())
        print(f"{name}: {f'{len(found)} problemas' if found else 'bem'}", *found, sep="\n  ", flush=True)
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
