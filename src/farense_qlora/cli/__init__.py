"""`farense-qlora <command>`: a thin face on the functions that the notebook calls, in Portuguese.

Bad input ends in one line on stderr and exit code 2. Heavy imports wait inside the commands: help is instant.
"""

import argparse
import json
import os
import sys

from ..errors import UserError, reason
from ..model import cpu, without_torch
from .parser import build_parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 when the answer is no, 2 for bad input, 130 on Ctrl-C."""
    ours = argv is None and "IPython" not in sys.modules  # or else the process is a notebook's, or a test's
    argv = sys.argv[1:] if argv is None else argv
    args = argparse.Namespace()
    try:
        build_parser().parse_args(argv, args)
        cpu.enable()
        if ours:
            without_torch()
        return int(args.command(args) or 0)
    except UserError as error:
        message = str(error)
    except BrokenPipeError:  # whoever read has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        message = f"{error.filename or 'disco'}: {reason(error)}"
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrompido", file=sys.stderr)
        return 130
    if "--json" in argv:
        answer = {"prompt": " ".join(args.question), "response": ""} if hasattr(args, "question") else {}
        print(json.dumps({**answer, "status": "error", "error": message}, ensure_ascii=False))
    print(f"erro: {message}", file=sys.stderr)
    return 2
