"""What each command does: call what the notebook calls, and write the result for people or as JSON."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import HOME, RUNS, Config, Limits
from ..errors import UserError

if TYPE_CHECKING:
    from ..data.tokens import Example
    from ..training.run import Run

WRONG_ANSWERS_SHOWN = 5


def prepare(args: argparse.Namespace) -> None:
    """Make the data files of `--facts` in `--to`; raises `UserError`, with nothing written, where one of them
    is a person's."""
    from ..data import prepare as data

    prepared = data.prepare(args.facts, args.to, args.seed)
    if prepared.kept:
        raise UserError(
            f"{prepared.kept[0]} tem linhas que não foram escritas por este comando, e nada foi escrito: "
            "indique outra pasta em --to, ou mude o nome a esse ficheiro"
        )
    counts = {name: len(getattr(prepared, name)) for name in ("train", "validation", "unseen", "removed")}
    _write(args, {"folder": str(args.to), **counts, "status": "ok"}, f"{prepared}; em {args.to}")


def data(args: argparse.Namespace) -> None:
    """Say what training will make of the rows, and show some, what is learnt marked; raises `UserError`."""
    from ..data.load import load_data
    from ..model.base import load_base

    config = Config.of(**_settings(args))
    base = load_base(config)
    with _counting("linhas", None) as progress:
        rows = load_data(config, base, progress)
    sentences = rows.sentences(config)
    shown = [
        f"linha {rows.training.lines[i]}: {marked(rows.training[i], base.tokenizer)}"
        for i in range(min(args.rows, len(rows.training)))
    ]
    _write(
        args,
        {
            "sentences": sentences,
            "rows": shown,
            "skipped": [vars(bad) for bad in rows.training.bad],
            "status": "ok",
        },
        "\n".join(sentences + shown),
    )


def marked(example: "Example", tokenizer: Any) -> str:
    """The text of `example` on one line, what is learnt of it between « and »."""
    parts = []
    for learnt, tokens in groupby(zip(example.supervised, example.tokens, strict=True), lambda pair: pair[0]):
        text = tokenizer.decode([int(token) for _, token in tokens])
        parts.append(f"«{text}»" if learnt else text)
    return "".join(parts).replace("\n", "⏎")


def train(args: argparse.Namespace) -> int:
    """Train, or go on; 130 when Ctrl-C stopped it, else 0. Raises `UserError` when it fails."""
    from ..training.run import start
    from .progress import follow, outcome

    settings = _settings(args)
    if args.resume and not args.run:
        raise UserError("--resume precisa de --run NOME; «farense-qlora runs» mostra os treinos que há")
    config = _run(args.run).config.changed(**settings) if args.resume else Config.of(**settings)
    run = start(config, args.run, args.accept_changes)
    code = 0
    try:
        follow(run)
    except KeyboardInterrupt:
        print("a parar: o passo em curso acaba e fica guardado", file=sys.stderr)
        run.stop()
        run.wait()
        code = 130
    result = outcome(run)
    _write(args, {**asdict(result), "status": "ok"}, result.sentence())
    return code


def stop(args: argparse.Namespace) -> None:
    """Stop a run and wait until it is saved; raises `UserError` when it is not clear which."""
    from ..training.run import Run, all_runs

    live = [run for run in all_runs() if run.alive]
    if not args.run and len(live) != 1:
        names = ", ".join(run.name for run in live) or "nenhum"
        raise UserError(f"diga que treino parar, com --run NOME (a decorrer: {names})")
    run = Run.open(args.run) if args.run else live[0]
    if not run.alive:
        raise UserError(f"o treino «{run.name}» não está a decorrer")
    run.stop()
    with contextlib.suppress(UserError):  # how it failed is in its events; here it only had to end
        run.wait()
    _write(args, {"run": run.name, "run_status": run.status, "status": "ok"}, f"treino «{run.name}» parado")


def list_runs(args: argparse.Namespace) -> None:
    """Show every run."""
    from ..training.overview import overview, overviews_text
    from ..training.run import all_runs

    rows = [overview(run) for run in all_runs()]
    _write(args, {"runs": [asdict(row) for row in rows], "status": "ok"}, overviews_text(rows))


def monitor(args: argparse.Namespace) -> None:
    """Follow a run, or with `--once` or `--json` show where it stands; raises `UserError`."""
    from ..training.overview import overview
    from ..ui.monitor import monitor, newest, show_once

    if not (args.once or args.json):
        monitor(args.run)
        return
    from ..training.run import Run

    run = Run.open(args.run) if args.run else newest()
    if args.json:
        _write(args, {**asdict(now := overview(run)), "run_status": now.status, "status": "ok"}, "")
    else:
        show_once(run)


def report(args: argparse.Namespace) -> None:
    """Write the HTML report of a run; raises `UserError`."""
    from ..ui.report import report

    run = _run(args.run)
    path = report(run, args.to)
    _write(args, {"run": run.name, "file": str(path), "status": "ok"}, f"relatório em {path}")


def fit(args: argparse.Namespace) -> int:
    """Measure whether training fits; 0 when some settings do, else 1. Raises `UserError` on bad ones."""
    from ..training.fit import Trial, fit

    asked = Config.of(**_settings(args))

    def say(trial: Trial) -> None:
        if not args.json:
            print(trial.sentence(asked), flush=True)

    found = fit(asked, say)
    fits = found.fits
    result = [
        {**asdict(trial), "config": trial.config.model_dump(mode="json"), "fits": trial.fits}
        for trial in found.trials
    ]
    nothing = "não cabe de maneira nenhuma: escolha um modelo mais pequeno"
    _write(args, {"trials": result, "fits": fits, "status": "ok"}, "pode treinar assim" if fits else nothing)
    return 0 if fits else 1


def doctor(args: argparse.Namespace) -> int:
    """Look the computer over; 0 when nothing is wrong, else 1."""
    from ..training.doctor import doctor

    report = doctor()
    _write(args, {**asdict(report), "ok": report.ok, "status": "ok"}, str(report))
    return 0 if report.ok else 1


def evaluate(args: argparse.Namespace) -> None:
    """Score an adapter, with `--base` beside its base model; raises `UserError`."""
    config, adapter = _adapter(args)
    from ..answers.compare import compare
    from ..answers.evaluate import Evaluation, asks, evaluate, store, token_scores
    from ..answers.scoreboard import changes_text, evaluation_text, tokens_text
    from ..data.load import load_data
    from ..data.tokens import read_rows
    from ..model.adapters import load_adapter
    from ..model.base import load_base

    base = load_base(config)
    data = None if args.data else load_data(config, base)
    if data:
        sets = {name: rows for name, rows in data.held_out().items() if any(map(asks, rows))}
    else:
        rows = read_rows(args.data, config.skip_bad, config.columns, config.encoding)
        sets = {args.data.name: rows}

    def measure(what: str) -> list[Evaluation]:
        with _counting(what, sum(sum(map(asks, rows)) for rows in sets.values())) as progress:
            return [evaluate(base, rows, name, progress) for name, rows in sets.items()]

    before = measure("modelo base") if args.base else []
    load_adapter(base.model, adapter)
    after = measure("adaptador")
    tokens = token_scores(base, data) if data else None
    if tokens and not args.adapter:
        store(_run(args.run).folder, tokens, before, after)
    texts = [tokens_text(tokens)] if tokens else []
    texts += [evaluation_text(evaluation) for evaluation in after]
    if before:
        texts.append(changes_text(compare(before, after)))
    for evaluation in after:
        for answer in evaluation.wrong[:WRONG_ANSWERS_SHOWN]:
            texts.append(f"P: {answer.question}\ncerta: {answer.expected}\ndada:  {answer.got}")
        if (more := len(evaluation.wrong) - WRONG_ANSWERS_SHOWN) > 0:
            texts.append(f"{evaluation.name}: e mais {more} respostas erradas, todas com --json")
    result = {
        "adapter": str(adapter),
        "tokens": asdict(tokens) if tokens else None,
        "before": [asdict(evaluation) for evaluation in before],
        "after": [asdict(evaluation) for evaluation in after],
        "status": "ok",
    }
    _write(args, result, "\n\n".join(texts))


def compare(args: argparse.Namespace) -> None:
    """Compare runs, or LoRA and QLoRA trained for it, and write the report; raises `UserError`."""
    from ..answers.compare import compare_runs, pair
    from ..answers.scoreboard import comparison_text
    from ..training.run import Run, start
    from .progress import follow

    settings = _settings(args)
    if args.runs and settings:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise UserError(f"com --runs não se treina nada: tire {given}")
    runs = [Run.open(name) for name in args.runs or []]
    if not runs:
        for config in pair(Config.of(**settings)):
            print(f"{'QLoRA' if config.bits == 4 else 'LoRA'}, base em {config.bits} bits", file=sys.stderr)
            runs.append(start(config))
            follow(runs[-1])
    from tqdm import tqdm

    from ..ui.comparison import save_comparison

    with tqdm(bar_format="{desc}", leave=False) as bar:
        comparison = compare_runs(
            runs, lambda who, done, total: bar.set_description_str(f"{who}: {done} de {total} respostas")
        )
    page = save_comparison(comparison, args.to)
    result = {"runs": [run.name for run in runs], "folder": str(args.to), **asdict(comparison)}
    _write(args, {**result, "status": "ok"}, f"{comparison_text(comparison)}\n\nrelatório em {page}")


def ask(args: argparse.Namespace) -> None:
    """Answer one question, piece by piece or as JSON; raises `UserError`."""
    if not args.question.strip():
        raise UserError("a pergunta está vazia")
    config, adapter = _adapter(args)
    from ..answers.generate import stream
    from ..model.adapters import load_adapter
    from ..model.base import load_base

    base = load_base(config)
    if not args.no_adapter:
        load_adapter(base.model, adapter)
    pieces = []
    for piece in stream(base, [{"role": "user", "content": args.question}], thinking=args.thinking):
        pieces.append(piece)
        if not args.json:
            print(piece, end="", flush=True)
    _write(args, {"prompt": args.question, "response": "".join(pieces), "status": "ok"}, "")


def chat(args: argparse.Namespace) -> None:
    """Converse until the input ends; raises `UserError` when there is no model to converse with."""
    config, adapter = _adapter(args)
    from ..model.adapters import load_adapter
    from ..model.base import load_base
    from .talk import converse

    base = load_base(config)
    load_adapter(base.model, adapter)
    converse(base, adapter=not args.no_adapter, thinking=args.thinking)


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C; raises `UserError` as `serving.app.serve` does, and on a bad token file."""
    config, adapter = _adapter(args)
    limits = Limits.parse({name: value for name, value in vars(args).items() if name in Limits.model_fields})
    token = os.environ.get("FARENSE_API_KEY", "").strip() or None
    if args.token_file:
        token = args.token_file.read_text(encoding="utf-8").strip()
        if not token:
            raise UserError(f"{args.token_file} está vazio: escreva lá a chave")
    from ..serving.app import serve

    name = args.adapter.resolve().name if args.adapter else adapter.relative_to(RUNS).parts[0]

    def ready(address: str) -> None:
        print(f"a servir «{name}» em {address} (Ctrl-C termina)", flush=True)

    serve(config, adapter, name, args.host, args.port, token, args.cors, limits, ready)


def export(args: argparse.Namespace) -> None:
    """Export a run, verified, and send it to the hub if asked; raises `UserError`."""
    run = _run(args.run)
    from tqdm import tqdm

    from ..exporting.export import export, export_folder, push, verification
    from ..exporting.verify import verification_text

    to = args.to or export_folder(run, args.format)
    with tqdm(bar_format="{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}", leave=False) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description_str(what, refresh=False)
            bar.update(done - bar.n)

        folder = export(run, to, args.format, args.gguf_type, progress=progress, replace=args.replace)
    report = verification(folder)
    result = {"run": run.name, "folder": str(folder), "verification": report, "status": "ok"}
    text = f"{verification_text([report])}\n\ntreino «{run.name}» exportado para {folder}"
    if args.push:
        result["pushed"] = push(folder, args.push)
        text += f" e enviado para {result['pushed']}"
    _write(args, result, text)


def mini_build(args: argparse.Namespace) -> None:
    """Pre-train the miniature, in `--to` or in place of the one there is."""
    from ..model.base import MINIATURE
    from ..model.mini import build

    folder = args.to or MINIATURE
    build(out=folder)
    print(f"miniatura em {folder}")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run that the flags give; a path that is only where the user stands, whole."""
    settings = {name: value for name, value in vars(args).items() if name in Config.model_fields}
    for name in ("train_data", "val_data", "chat_template", "from_adapter"):
        value = settings.get(name)
        if value and Path(value).exists() and not (HOME / value).exists():
            settings[name] = str(Path(value).absolute())
    return settings


def _adapter(args: argparse.Namespace) -> tuple[Config, Path]:
    """The config and the adapter's folder that the flags name; `--model` says where the base is instead."""
    if args.adapter:
        from ..exporting.export import exported_config

        config, folder = exported_config(args.adapter), args.adapter
    else:
        run = _run(args.run)
        config, folder = run.config, run.best_adapter
    return (config.changed(model=args.model) if args.model else config), folder


def _run(name: str | None) -> "Run":
    """The run called `name`, or the newest finished one."""
    from ..training.run import Run, all_runs

    if name:
        return Run.open(name)
    finished = [run for run in all_runs() if run.finished]
    if not finished:
        raise UserError(f"ainda não há nenhum treino terminado em {RUNS}: comece com «farense-qlora train»")
    return finished[-1]


def _write(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    print(json.dumps(result, ensure_ascii=False) if args.json else text)


@contextlib.contextmanager
def _counting(what: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr; gives what adds to it."""
    from tqdm import tqdm

    layout = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}" if total else "{desc}: {n_fmt} {elapsed}"
    with tqdm(total=total, desc=what, bar_format=layout, leave=False) as bar:
        yield bar.update
