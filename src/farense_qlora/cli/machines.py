"""Several computers: who they are, and how much faster they would be."""

import argparse
import json

import farense_qlora as fq

from ..config import Config
from ..errors import UserError
from .commands import write
from .given import given


def hosts(args: argparse.Namespace) -> None:
    """Show what each computer in a file says of itself, or with `--plan` how much faster several would be;
    raises `UserError`."""
    if args.plan:
        from ..training.plan import plan

        table = plan(Config.of(**given(args)), args.tokens_per_second)
    elif args.file:
        table = fq.hosts(args.file)
    else:
        raise UserError("diga o ficheiro dos computadores, ou --plan")
    write(args, {"rows": json.loads(table.to_json(orient="records"))}, str(table))
