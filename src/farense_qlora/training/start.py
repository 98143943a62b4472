"""A training begins, or goes on: in the folder of its run, unless another is under way on this computer."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ..config import HOME, Config
from ..errors import UserError
from ..files import atomic_write
from ..model.download import find_model
from .checkpoints import changes, fingerprints, latest, tidy
from .event_log import NAME
from .events import Merged, of
from .hosts import FILE, Hosts
from .requests import clear_requests
from .run import ENDED, Run, all_runs, new_folder
from .worker import launch, lock_holder, take_lock


def start(
    config: Config, name: str | None = None, accept_changes: bool = False, hosts: str | Path = ""
) -> Run:
    """Launch a worker process that trains as `config` says in the run folder `name`; it outlives this one.

    `hosts` is the setting of that name: the computers that train together. A run may go on with others, or
    alone.

    A run that exists goes on from its last checkpoint, if config and data are its own or `accept_changes`;
    one that saved nothing begins again. Without a name, the newest run of `config` that has not come to its
    end is taken up (or joined, while its worker is at it), and otherwise a new one begun. Downloads a model
    that is not here, and raises as `find_model` does; raises `UserError` when any run is under way already,
    and when the one called `name` differs.

    >>> fq.start(config.changed(max_steps=1), "exemplo").wait().status
    'completed'
    """
    if hosts:
        config = config.changed(hosts=str(Path(hosts).absolute()))
    if name is None and (unended := _unended(config)) is not None:
        if unended.alive:
            return unended
        name = unended.name
    if name is None:
        lora = "-lora" if config.bits == 16 != Config.of(config.profile).bits else ""
        name = f"{config.profile}{lora}-{datetime.now():%Y%m%d-%H%M%S}"
    run = Run(new_folder(name))
    if run.folder.exists() and run.name not in os.listdir(run.folder.parent):
        raise UserError(
            f"há um treino cujo nome só difere de «{run.name}» nas maiúsculas, que este disco não distingue: "
            "escolha outro nome, ou escreva-o como está em checkpoints_qlora"
        )
    if config.hosts:
        Hosts.read(HOME / config.hosts)
    if of(run.events(), Merged):
        raise UserError(
            f"«{run.name}» junta outros treinos, e não se treina: parta dele, com outro nome e "
            f"--from-adapter {run.folder.relative_to(run.folder.parents[1])}"
        )
    if other := next((one for one in all_runs() if one.alive and one.folder != run.folder), None):
        raise UserError(
            f"o treino «{other.name}» está a decorrer neste computador, e dois ao mesmo tempo disputavam a "
            "memória: espere que acabe, ou pare-o («farense-qlora stop»); fq.watch() volta a mostrá-lo"
        )
    find_model(config.base_model)  # here, where one sees it come and can interrupt it
    lock = take_lock(run.folder)
    if lock is None:
        who = lock_holder(run.folder)
        raise UserError(f"o treino «{run.name}» já está a decorrer" + (f" ({who})" if who else ""))
    with lock:  # closed here at the end; the worker keeps it
        tidy(run.folder)
        checkpoint = latest(run.folder)
        if checkpoint and not accept_changes:
            changed = changes(checkpoint, config, fingerprints(config))
            if changed:
                raise UserError(
                    f"já há um treino chamado «{run.name}» com outras definições ou outros dados "
                    f"({'; '.join(changed)}): escolha outro nome, ou aceite a mudança com --accept-changes"
                )
        if checkpoint is None:
            (run.folder / NAME).unlink(missing_ok=True)
        clear_requests(run.folder)
        with atomic_write(run.folder / "config.json") as path:
            config.write(path)
        (run.folder / FILE).unlink(missing_ok=True)
        if config.hosts:
            with atomic_write(run.folder / FILE) as path:
                path.write_bytes((HOME / config.hosts).read_bytes())
        worker = launch(run.folder, lock, accept_changes)
    return Run(run.folder, worker)


def finished(config: Config) -> Run | None:
    """The newest run of `config` that came to its end, if there is one.

    >>> fq.finished(config).name
    'decorado'
    """
    return next((run for run in _runs_of(config) if run.status in ENDED), None)


def ended(config: Config, name: str) -> Run | None:
    """The run called `name`, if it came to its end with `config` and the data as they are: nothing is left to
    train. Raises `UserError` when the data are not there."""
    for run in _runs_of(config):
        if run.name == name and run.status in ENDED:
            checkpoint = latest(run.folder)
            return run if checkpoint and not changes(checkpoint, config, fingerprints(config)) else None
    return None


def _unended(config: Config) -> Run | None:
    """The newest run of `config` and its data, if it is under way, was interrupted or was stopped."""
    run = next(_runs_of(config), None)
    if run is None or run.status not in ("running", "paused", "stopped", "interrupted", "new"):
        return None
    checkpoint = latest(run.folder)
    return None if checkpoint and changes(checkpoint, config, fingerprints(config)) else run


def _runs_of(config: Config) -> Iterator[Run]:
    """The runs of `config`, on whatever computers, newest first."""
    for run in all_runs():
        with suppress(UserError):  # of an older version, or damaged: not ours to take up
            if run.config.changed(hosts=config.hosts) == config:
                yield run
