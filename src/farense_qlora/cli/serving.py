"""What `serve` serves: one adapter or several, each under its own name."""

import argparse
import os

import farense_qlora as fq

from ..config import RUNS
from ..errors import UserError
from ..serving.api import Limits
from .commands import adapter_of


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C; raises `UserError` as `serving.app.serve` does, on a bad token file, and when the
    adapters have not the same base or not names of their own."""
    configs, folders = {}, {}
    exported = [(None, path) for path in args.adapter or ()]
    for run, path in exported or [(run, None) for run in args.run or (None,)]:
        config, folder = adapter_of(run, path, args.model)
        name = path.resolve().name if path else folder.relative_to(RUNS).parts[0]
        if name in folders:
            raise UserError(f"há dois adaptadores chamados «{name}»: tire um, ou mude-lhe o nome")
        configs[name], folders[name] = config, folder
    limits = Limits.parse({name: value for name, value in vars(args).items() if name in Limits.model_fields})
    token = os.environ.get("FARENSE_API_KEY", "").strip() or None
    if args.token_file and not (token := args.token_file.read_text(encoding="utf-8").strip()):
        raise UserError(f"{args.token_file} está vazio: escreva lá a chave")
    try:
        serve = fq.serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"para servir falta {error.name}: instale com «pip install 'farense-qlora[serve]'»"
        ) from None
    from ..model.base import check_same_base

    check_same_base(configs)

    def ready(address: str) -> None:
        names = ", ".join(f"«{name}»" for name in folders)
        print(f"a servir {names} em {address} (Ctrl-C termina)", flush=True)

    serve(next(iter(configs.values())), folders, args.host, args.port, token, args.cors, limits, ready)
