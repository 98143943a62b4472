"""What the commands for data, runs and computers do: call what the notebook calls, and write the result for
people or as JSON."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import farense_qlora as fq

from ..config import HOME, RUNS, Config
from ..errors import UserError
from ..files import bytes_in
from ..text import size
from ..training.hosts import RANK


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

    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:  # started by MPI, which has names of its own
        os.environ[RANK] = os.environ["OMPI_COMM_WORLD_RANK"]
    if os.environ.get(RANK, "0") != "0":  # started by mlx.launch, beside a first that says what is to be done
        from ..training.helper import main

        return main()
    settings = given(args)
    if args.resume and not args.run:
        raise UserError("--resume precisa de --run NOME; «farense-qlora runs» mostra os treinos que há")
    config = run_of(args.run).config.changed(**settings) if args.resume else Config.of(**settings)
    if args.run and (run := ended(config, args.run)):
        result, text = outcome(run)
        write(args, result, f"já tinha acabado: {text}")
        return 0
    run = fq.start(config, args.run, args.accept_changes)
    code = 0
    try:
        follow(run)
    except KeyboardInterrupt:
        stop_and_wait(run)
        code = 130
    write(args, *outcome(run))
    return code


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


def stop(args: argparse.Namespace) -> None:
    """Stop a run and wait until it is saved; raises `UserError` when it is not clear which."""
    from ..training.run import all_runs
    from .progress import stop_and_wait

    live = [fq.Run.open(args.run)] if args.run else [run for run in all_runs() if run.alive]
    if not live:
        raise UserError("não há nenhum treino a decorrer")
    if len(live) > 1:
        names = ", ".join(run.name for run in live)
        raise UserError(f"diga que treino parar, com --run NOME (a decorrer: {names})")
    (run,) = live
    if not run.alive:
        raise UserError(f"o treino «{run.name}» não está a decorrer")
    with contextlib.suppress(UserError):  # how it failed is in its events; here it only had to end
        stop_and_wait(run)
    write(args, {"run": run.name, "run_status": run.status}, f"treino «{run.name}» parado")


def runs(args: argparse.Namespace) -> int:
    """Show every run, delete some or rename one; 1 when none was to go after all. Raises `UserError`."""
    from ..training.overview import overview, runs_text
    from ..training.run import all_runs

    if args.yes and not args.delete:
        raise UserError("--yes só serve com --delete NOME: é o que apaga sem perguntar")
    if args.delete:
        result, text = _delete(args.delete, args.yes)
    elif args.rename:
        result, text = {"run": args.rename[1]}, fq.Run.open(args.rename[0]).rename(args.rename[1])
    else:
        rows = [overview(run) for run in all_runs()]
        result, text = {"runs": [asdict(row) for row in rows]}, runs_text(rows)
    write(args, result, text)
    return int(result.get("deleted") == [])


def _delete(names: Sequence[str], yes: bool) -> tuple[dict[str, Any], str]:
    """Delete the runs called `names`, once somebody at the terminal agrees unless `yes`; returns what is
    gone, for programs and for people. Raises `UserError`, with nothing deleted, when one of them cannot go
    and when there is nobody to ask.
    """
    doomed = [fq.Run.open(name) for name in dict.fromkeys(names)]
    for run in doomed:
        run.hold().close()
    taken = sum(bytes_in(run.folder) for run in doomed)
    what = f"{', '.join(run.name for run in doomed)} ({size(taken / 1e9)})"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"sem terminal não há a quem perguntar: para apagar {what} junte --yes")
        runs = "o treino" if len(doomed) == 1 else "os treinos"
        print(f"Apagar {runs} {what}? [s/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("s", "sim"):
            return {"deleted": [], "bytes": 0}, "nada foi apagado"
    said = [run.delete() for run in doomed]
    return {"deleted": [run.name for run in doomed], "bytes": taken}, "\n".join(said)


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
    run = run_of(args.run)
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


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the flags give. A path is of where the user stands, or else of the project's folder;
    one that is not the same in both is whole, and so is that of a file which is nowhere."""
    settings = {name: value for name, value in vars(args).items() if name in Config.model_fields}
    for name in ("train_data", "val_data", "chat_template", "from_adapter", "hosts"):
        if not (value := settings.get(name)):
            continue
        here, there = Path(value), HOME / value
        a_file = name == "hosts" or (name.endswith("_data") and here.suffix)  # and no id of the hub
        if here.exists():
            whole = not (there.exists() and here.samefile(there))
        else:
            whole = bool(a_file) and not there.exists()
        if whole:
            settings[name] = str(here.absolute())
    return settings


def run_of(name: str | None) -> Any:
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
