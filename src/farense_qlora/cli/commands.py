"""What each command does: call what the notebook calls, and write the result for people or as JSON."""

import argparse
import contextlib
import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import farense_qlora as fq

from ..config import RUNS, Config
from ..errors import UserError
from ..text import counted
from ..training.events import sentence
from ..training.hosts import RANK
from .given import given

WRONG_ANSWERS_SHOWN = 5


def prepare(args: argparse.Namespace) -> None:
    """Make the data files of `--facts` in `--to`; raises `UserError` before it writes over a person's."""
    prepared = fq.prepare(args.facts, args.to, args.seed)
    if prepared.kept:
        raise UserError(
            f"{prepared.kept[0]} tem linhas que não foram escritas por este comando, e nada foi escrito: "
            "indique outra pasta em --to, ou mude o nome a esse ficheiro"
        )
    parts = ("train", "validation", "other", "unanswerable", "unseen", "removed")
    counts = {name: len(getattr(prepared, name)) for name in parts}
    write(args, {"folder": str(args.to), **counts}, f"{prepared}; em {args.to}")


def data(args: argparse.Namespace) -> None:
    """Say what training will make of the rows, and show some, what is learnt marked; raises `UserError`, as
    training would."""
    from .progress import counting

    config = Config.of(**given(args))
    reader = fq.load_tokenizer(config)
    with counting("linhas", None) as bar:
        data = fq.load_data(config, reader, bar.update)
    data.check()
    rows = [
        f"linha {data.training.lines[i]}: {data.training[i].marked(reader.tokenizer)}"
        for i in range(min(args.rows, len(data.training)))
    ]
    result = {"sentences": data.sentences, "rows": rows, "skipped": [vars(bad) for bad in data.training.bad]}
    write(args, result, "\n".join([*data.sentences, *rows]))


def train(args: argparse.Namespace) -> int:
    """Train, or go on; 130 when Ctrl-C stopped it, else 0. Raises `UserError` when it fails."""
    from ..training.start import ended
    from .progress import follow, outcome, stop_and_wait

    if os.environ.get(RANK, "0") != "0":  # started by mlx.launch, beside a first that says what is to be done
        from ..training.helper import main

        return main()
    settings = given(args)
    if args.resume and not args.run:
        raise UserError("--resume precisa de --run NOME; «farense-qlora runs» mostra os treinos que há")
    config = _run(args.run).config.changed(**settings) if args.resume else Config.of(**settings)
    if args.run and (run := ended(config, args.run)):
        result, text = outcome(run)
        write(args, result, f"já tinha acabado: {text}")
        return 0
    run = fq.start(config, args.run, args.accept_changes, args.hosts)
    code = 0
    try:
        follow(run)
    except KeyboardInterrupt:
        stop_and_wait(run)
        code = 130
    write(args, *outcome(run))
    return code


def stop(args: argparse.Namespace) -> None:
    """Stop a run and wait until it is saved; raises `UserError` when it is not clear which."""
    from ..training.run import all_runs
    from .progress import stop_and_wait

    live = [run for run in all_runs() if run.alive]
    if not (args.run or live):
        raise UserError("não há nenhum treino a decorrer")
    if not args.run and len(live) != 1:
        names = ", ".join(run.name for run in live)
        raise UserError(f"diga que treino parar, com --run NOME (a decorrer: {names})")
    run = fq.Run.open(args.run) if args.run else live[0]
    if not run.alive:
        raise UserError(f"o treino «{run.name}» não está a decorrer")
    with contextlib.suppress(UserError):  # how it failed is in its events; here it only had to end
        stop_and_wait(run)
    write(args, {"run": run.name, "run_status": run.status}, f"treino «{run.name}» parado")


def runs(args: argparse.Namespace) -> int:
    """Show every run, delete some or rename one; 1 when none was to go after all. Raises `UserError`."""
    from ..training.overview import overview, runs_text
    from ..training.run import all_runs
    from .deletion import delete

    if args.yes and not args.delete:
        raise UserError("--yes só serve com --delete NOME: é o que apaga sem perguntar")
    if args.delete:
        result, text = delete(args.delete, args.yes)
    elif args.rename:
        result, text = {"run": args.rename[1]}, fq.Run.open(args.rename[0]).rename(args.rename[1])
    else:
        rows = [overview(run) for run in all_runs()]
        result, text = {"runs": [asdict(row) for row in rows]}, runs_text(rows)
    write(args, result, text)
    return int(result.get("deleted") == [])


def queue(args: argparse.Namespace) -> None:
    """Show the newest trials, stop them or go on with them; raises `UserError` when there are none."""
    from ..answers.trials import newest

    trials = newest(go_on=args.resume)
    if args.stop:
        trials.stop()
        trials.wait()
    rows = json.loads(trials.table().to_json(orient="records"))
    write(args, {"trials": trials.folder.name, "running": trials.alive, "rows": rows}, str(trials))


def monitor(args: argparse.Namespace) -> None:
    """Follow a run, or with `--once` or `--json` show where it stands; raises `UserError`."""
    from ..training.overview import overview
    from ..ui.monitor import monitor, newest, show_once

    if not (args.once or args.json):
        monitor(args.run)
        return
    run = fq.Run.open(args.run) if args.run else newest()
    if args.json:
        now = overview(run)
        write(args, {**asdict(now), "run_status": now.status}, "")
    else:
        show_once(run)


def track(args: argparse.Namespace) -> None:
    """Copy a run to a tracker, as `training.track` does; raises `UserError`."""
    from ..training.track import track
    from ..ui.monitor import newest

    run = fq.Run.open(args.run) if args.run else newest()
    live = f"a seguir «{run.name}» até ao fim; Ctrl-C sai. Para ver:"
    view = track(run, args.to, lambda view: print(live, view, file=sys.stderr, flush=True))
    write(args, {"run": run.name, "view": view}, f"treino «{run.name}» copiado; para ver: {view}")


def report(args: argparse.Namespace) -> None:
    """Write the HTML report of a run; raises `UserError`."""
    run = _run(args.run)
    path = fq.report(run, args.to)
    write(args, {"run": run.name, "file": str(path)}, f"relatório em {path}")


def fit(args: argparse.Namespace) -> int:
    """Measure whether training fits; 0 when some settings do, else 1. Raises `UserError` on bad ones."""
    asked = Config.of(**given(args))

    def say(trial: Any) -> None:
        if not args.json:
            print(trial.sentence(asked), flush=True)

    found = fq.fit(asked, say)
    result = [
        {**asdict(trial), "config": trial.config.model_dump(mode="json"), "fits": trial.fits}
        for trial in found.trials
    ]
    not_so = found.untried or "não cabe de maneira nenhuma: escolha um modelo mais pequeno"
    write(args, {"trials": result, "fits": found.fits}, "pode treinar assim" if found.fits else not_so)
    return 0 if found.fits else 1


def doctor(args: argparse.Namespace) -> int:
    """Look the computer over; 0 when nothing is wrong, else 1."""
    from ..training.doctor import share

    report = fq.doctor()
    if args.share:
        print(share(report.machine))
        return 0
    write(args, {**asdict(report), "ok": report.ok}, str(report))
    return 0 if report.ok else 1


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
        sets = {args.data.name: rows}
        measure = partial(evaluate_rows, base, rows, args.data.name)
    else:
        data = fq.load_data(config, base)
        sets = data.held_out()
        measure = partial(fq.evaluate, base, data)
    before, count = None, sum(map(len, questions(sets).values()))
    if args.base:
        with counting("modelo base", count) as bar:
            before = measure(bar.update)
    load_adapter(base.model, adapter)
    with counting("adaptador", count) as bar:
        after = measure(bar.update)
    if not (args.data or args.adapter):
        after.save(_run(args.run).folder, before)
    texts = [str(after), *([str(fq.compare(before, after))] if before else [])]
    for one in after.sets:
        for answer in one.wrong[:WRONG_ANSWERS_SHOWN]:
            texts.append(f"P: {answer.question}\ncerta: {answer.expected}\ndada:  {answer.got}")
        if (more := len(one.wrong) - WRONG_ANSWERS_SHOWN) > 0:
            texts.append(f"{one.name}: e mais {counted(more, 'resposta errada')}, todas com --json")
    write(args, {"adapter": str(adapter), **after.to_json(before)}, "\n\n".join(texts))


def compare(args: argparse.Namespace) -> None:
    """Compare runs, or LoRA and QLoRA trained for it, and write the report; raises `UserError`."""
    from ..answers.compare import pair
    from ..ui.comparison import save_comparison
    from .progress import follow, telling

    settings = given(args)
    if args.runs and settings:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise UserError(f"com --runs não se treina nada: tire {flags}")
    runs = [fq.Run.open(name) for name in args.runs or []]
    if not runs:
        for config in pair(Config.of(**settings)):
            print(f"{'QLoRA' if config.bits < 16 else 'LoRA'}, base em {config.bits} bits", file=sys.stderr)
            runs.append(fq.start(config))
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
    config, adapter = adapter_of(args.run, args.adapter, args.model)
    from .talk import conversation

    pieces = []
    load = partial(fq.load_base, config) if args.no_adapter else partial(fq.load_tuned, config, adapter)
    for piece in conversation(args, load).say(question):
        pieces.append(piece)
        if not args.json:
            print(piece, end="", flush=True)
    write(args, {"prompt": question, "response": "".join(pieces)}, "")


def chat(args: argparse.Namespace) -> None:
    """Converse until the input ends; raises `UserError` when there is no model to converse with."""
    config, adapter = adapter_of(args.run, args.adapter, args.model)
    from .talk import conversation, converse

    converse(conversation(args, partial(fq.load_tuned, config, adapter)), adapter)


def export(args: argparse.Namespace) -> None:
    """Export a run, verified, and send it to the hub if asked; raises `UserError`."""
    from ..exporting.export import export_folder, exports, push
    from ..exporting.metadata import verification
    from ..exporting.verify import verification_table
    from ..training.run import ENDED
    from .progress import telling

    run, several = _run(args.run), len(args.format) > 1
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
        run = _run(name)
        config, folder = run.config, run.best_adapter
    return (config.changed(model=model) if model else config), folder


def _run(name: str | None) -> Any:
    """The run called `name`, or the newest finished one."""
    from ..training.run import all_runs

    if name:
        return fq.Run.open(name)
    finished = [run for run in all_runs() if run.finished]
    if not finished:
        raise UserError(f"ainda não há nenhum treino terminado em {RUNS}: comece com «farense-qlora train»")
    return finished[0]


def write(args: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """Print what a command came to, as the one who called it wants it."""
    print(json.dumps({**result, "status": "ok"}, ensure_ascii=False) if args.json else text)
