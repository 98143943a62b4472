"""What the commands for a trained adapter do: evaluate, compare, ask, chat, serve, export and merge."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import farense_qlora as fq

from ..config import RUNS, Config
from ..errors import UserError
from ..serving.api import Limits
from ..text import counted
from ..training.events import sentence
from .commands import given, run_of, write

WRONG_ANSWERS_SHOWN = 5


def evaluate(args: argparse.Namespace) -> None:
    """Score an adapter, with `--base` beside its base model; raises `UserError`."""
    from ..answers.evaluate import evaluate_rows, questions
    from ..data.tokens import read_rows
    from ..model.adapters import load_adapter
    from .progress import counting

    config, adapter = adapter_of(args.run, args.adapter, args.model)
    base = fq.load_base(config)
    if args.data:
        rows = read_rows(args.data, config.skip_bad, config.columns, config.encoding)
        sets, measure = {args.data.name: rows}, partial(evaluate_rows, base, rows, args.data.name)
    else:
        data = fq.load_data(config, base)
        sets, measure = data.held_out(), partial(fq.evaluate, base, data)
    before, count = None, sum(map(len, questions(sets).values()))
    if args.base:
        with counting("modelo base", count) as bar:
            before = measure(bar.update)
    load_adapter(base.model, adapter)
    with counting("adaptador", count) as bar:
        after = measure(bar.update)
    if not (args.data or args.adapter):
        after.save(run_of(args.run).folder, before)
    texts = [str(after), *([str(fq.compare(before, after))] if before else [])]
    for one in after.sets:
        for answer in one.wrong[:WRONG_ANSWERS_SHOWN]:
            texts.append(f"P: {answer.question}\ncerta: {answer.expected}\ndada:  {answer.got}")
        if (more := len(one.wrong) - WRONG_ANSWERS_SHOWN) > 0:
            texts.append(f"{one.name}: e mais {counted(more, 'resposta errada')}, todas com --json")
    write(args, {"adapter": str(adapter), **after.to_json(before)}, "\n\n".join(texts))


def compare(args: argparse.Namespace) -> None:
    """Compare runs, or LoRA and QLoRA trained for it, and write the report; raises `UserError`."""
    from ..ui.comparison import save_comparison
    from .progress import follow, telling

    settings = given(args)
    if args.runs and settings:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise UserError(f"com --runs não se treina nada: tire {flags}")
    runs = [fq.Run.open(name) for name in args.runs or []]
    if not runs:
        for method, bits in (("LoRA", 16), ("QLoRA", 4)):
            print(f"{method}, base em {bits} bits", file=sys.stderr)
            runs.append(fq.start(Config.of(**settings).changed(bits=bits)))
            follow(runs[-1])
    with telling() as tell:
        comparison = fq.compare_runs(runs, tell)
    page = save_comparison(comparison, args.to)
    result = {"runs": [run.name for run in runs], "folder": str(args.to), **comparison.to_json()}
    write(args, result, f"{comparison}\n\nrelatório em {page}")


def ask(args: argparse.Namespace) -> None:
    """Answer one question, piece by piece or as JSON; raises `UserError`."""
    question = " ".join(args.question)  # without quotation marks a shell takes it apart
    if not question.strip():
        raise UserError("a pergunta está vazia")
    from .talk import conversation

    pieces = []
    for piece in conversation(args, *adapter_of(args.run, args.adapter, args.model)).say(question):
        pieces.append(piece)
        if not args.json:
            print(piece, end="", flush=True)
    write(args, {"prompt": question, "response": "".join(pieces)}, "")


def chat(args: argparse.Namespace) -> None:
    """Converse until the input ends; raises `UserError` when there is no model to converse with."""
    from .talk import conversation, converse

    config, adapter = adapter_of(args.run, args.adapter, args.model)
    converse(conversation(args, config, adapter), adapter)


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


def export(args: argparse.Namespace) -> None:
    """Export a run, verified, and send it to the hub if asked; raises `UserError`."""
    from ..exporting.export import export_folder, exports, push
    from ..exporting.metadata import verification
    from ..exporting.verify import verification_table
    from ..training.run import ENDED
    from .progress import telling

    run, several = run_of(args.run), len(args.format) > 1
    if several and args.push:
        raise UserError("para o Hub envia-se um formato de cada vez: com --push diga um só em --format")
    folders = {format: args.to or export_folder(run, format) for format in args.format}
    if several and args.to:
        folders = {format: args.to / format for format in args.format}
    with telling() as tell:
        written = list(exports(run, folders, progress=tell, replace=args.replace, converter=args.converter))
    checked = [verification(folder) for folder in written]
    said = [{"folder": str(to), "verification": one} for to, one in zip(written, checked, strict=True)]
    result: dict[str, Any] = {"run": run.name, "exports": said}
    places = ", ".join(map(str, written))
    text = f"{verification_table(checked)}\n\ntreino «{run.name}» exportado para {places}"
    if run.status not in ENDED:
        text += f" (só com {run.numbers.step} de {run.numbers.total_steps} atualizações)"
    if args.push:
        result["pushed"] = push(written[0], args.push)
        text += f" e enviado para {result['pushed']}"
    write(args, result, text)


def merge(args: argparse.Namespace) -> None:
    """Make one adapter of those of several runs, verified; raises `UserError`."""
    from .progress import outcome, telling

    with telling() as tell:
        run = fq.merge(args.runs, args.weights, name=args.run, progress=tell)
    result, _ = outcome(run)
    write(args, result, f"treino «{run.name}»: {sentence(run.events()[0])}; adaptador em {run.best_adapter}")


def adapter_of(name: str | None, exported: Path | None, model: str | None) -> tuple[Config, Path]:
    """The config and the folder of the adapter that is `exported`, or else that of the run called `name`;
    `model` says where the base is instead."""
    if exported:
        from ..exporting.metadata import exported_config

        config, folder = exported_config(exported), exported
    else:
        run = run_of(name)
        config, folder = run.config, run.best_adapter
    return (config.changed(model=model) if model else config), folder
