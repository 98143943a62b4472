"""Copy a run to an experiment tracker, through that tracker's own library, which only this module imports.

Training knows nothing of it: what is copied are the rows of `history`, and the settings. Each copy takes the
place of the one before, so a run that is sent twice, or goes back to a checkpoint, has one value a step.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from pathlib import Path
from shlex import quote

from ..config import OUTPUT
from ..errors import UserError
from .event_log import EventReader
from .events import Evaluated, Event, Stepped, of
from .numbers import history
from .run import Run

PROJECT = "farense-qlora"
SECONDS_BETWEEN_LOOKS = 1.0
MOST_AT_ONCE = 1000  # of the values that MLflow takes
# Steps in order, each with its Unix time and its numbers by their names; of the last one more may come.
Rows = list[tuple[int, float, dict[str, float]]]
Opened = tuple[str, Callable[[Rows], None]]  # what shows a copy, a command or an address, and what adds to it


def track(run: Run, to: str, live: Callable[[str], None] = lambda view: None) -> str:
    """Copy `run` to the tracker `to`, one of `TRACKERS`; one under way is followed to its end, or to Ctrl-C.

    Returns what shows the copy, a command or an address; of a run under way `live` is told it at the start.
    Raises `UserError` when there is no such tracker, when its library is missing or refuses, and when the run
    has yet to begin.
    """
    if to not in TRACKERS:
        raise UserError(f"não sei copiar um treino para «{to}»: há {', '.join(TRACKERS)}")
    log, whole = EventReader(run.folder), False
    while run.alive and not log.poll():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    log.poll()
    if not log.events:
        raise UserError(f"o treino «{run.name}» ainda não começou: não há nada que copiar")
    try:
        while not whole:
            # What the libraries print, some of it about uploads that are none, is not the user's to read.
            with redirect_stdout(None), TRACKERS[to](run, int(1000 * log.events[0].time)) as (view, write):
                if run.alive:
                    live(view)
                whole = _follow(run, log, write)
    except (UserError, OSError):
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"para copiar para {to} falta {error.name}: instale com «pip install 'farense-qlora[{to}]'»"
        ) from None
    except Exception as error:  # each library has errors of its own
        raise UserError(f"{to} não aceitou o treino: {' '.join(str(error).split())}") from error
    return view


def _follow(run: Run, log: EventReader, write: Callable[[Rows], None]) -> bool:
    """Write what `log` has, and what comes, until `run` ends or Ctrl-C; False once some of it is undone."""
    sent: dict[int, dict[str, float]] = {}
    with suppress(KeyboardInterrupt):
        while True:
            alive = run.alive  # asked before reading: what a worker wrote before it ended is read below
            if log.poll() or not sent:
                rows = _rows(log.events)
                if any(old.items() - rows.get(step, {}).items() for step, old in sent.items()):
                    return False
                times = {event.step: event.time for event in of(log.events, Stepped, Evaluated)}
                new = {step: dict(row.items() - sent.get(step, {}).items()) for step, row in rows.items()}
                write([(step, times[step], row) for step, row in new.items() if row])
                sent = rows
            if not alive:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _rows(events: Sequence[Event]) -> dict[int, dict[str, float]]:
    """By its step, what the `history` of `events` has in each row."""
    rows = history(events).to_dict("records")
    return {
        row.pop("step"): {str(name): value for name, value in row.items() if value == value} for row in rows
    }


@contextmanager
def _tensorboard(run: Run, began: int) -> Iterator[Opened]:
    """Files in output/tensorboard/NAME."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = OUTPUT / "tensorboard" / run.name
    for old in folder.glob("events.out.tfevents.*"):
        old.write_bytes(b"")  # without it, a TensorBoard that is open would not go on to the next
    file = EventFileWriter(str(folder))
    # It forgets what it has read.
    file.add_event(Event(wall_time=began / 1000, session_log=SessionLog(status=SessionLog.START)))
    settings = {name: value if isinstance(value, int | float) else str(value) for name, value in run.config}
    file.add_event(Event(wall_time=began / 1000, summary=hparams_pb(settings, start_time_secs=began / 1000)))

    def write(rows: Rows) -> None:
        for step, when, numbers in rows:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
            file.add_event(Event(wall_time=when, step=step, summary=Summary(value=values)))
        file.flush()

    try:
        yield f"tensorboard --logdir {quote(str(folder.parent))}", write
    finally:
        file.close()


@contextmanager
def _mlflow(run: Run, began: int) -> Iterator[Opened]:
    """A database in output/mlflow, or where MLFLOW_TRACKING_URI says; it marks the copy before as deleted."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    server, file = os.environ.get("MLFLOW_TRACKING_URI"), OUTPUT / "mlflow" / "mlflow.db"
    if not server:
        file.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(server or f"sqlite:///{file}")
    project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    known = client.get_experiment_by_name(project)
    experiment = known.experiment_id if known else client.create_experiment(project)
    for old in client.search_runs([experiment], f"tags.farense = '{began}'"):
        client.delete_run(old.info.run_id)
    tags = {"farense": str(began)}
    made = client.create_run(experiment, began, tags, run.name).info.run_id
    client.log_batch(made, params=[Param(name, str(value)) for name, value in run.config])

    def write(rows: Rows) -> None:
        metrics = [
            Metric(name, value, int(1000 * when), step)
            for step, when, numbers in rows
            for name, value in numbers.items()
        ]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            client.log_batch(made, metrics[first : first + MOST_AT_ONCE])

    try:
        yield server or f"mlflow ui --backend-store-uri {quote(f'sqlite:///{file}')}", write
    finally:
        end = int(1000 * run.events()[-1].time)
        client.set_terminated(made, "FINISHED" if run.finished else "KILLED", end)


@contextmanager
def _wandb(run: Run, began: int) -> Iterator[Opened]:
    """Files in output/wandb, or the account whose key the user has set up; nobody is asked for one."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which it sends offline too
    import wandb

    offline = not wandb.login(prompt=False)
    place = Path(os.environ.get("WANDB_DIR") or OUTPUT)
    place.mkdir(parents=True, exist_ok=True)
    copy = wandb.init(
        mode="offline" if offline else "online",
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=f"farense-{began}",
        name=run.name,
        dir=place,
        config=run.config.model_dump(mode="json"),
        reinit="create_new",  # one that a notebook has begun goes on
        settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True, silent=offline),
    )
    folder = Path(copy.dir).parent
    for old in folder.parent.glob(f"offline-run-*/run-farense-{began}.wandb"):
        if old.parent != folder:
            shutil.rmtree(old.parent)

    def write(rows: Rows) -> None:
        for step, when, numbers in rows:
            copy.log({**numbers, "_timestamp": when}, step)

    try:
        yield f"wandb leet {quote(str(folder))}" if offline else str(copy.url), write
    finally:
        copy.finish(exit_code=int(not run.finished))


@contextmanager
def _trackio(run: Run, began: int) -> Iterator[Opened]:
    """A database in output/trackio, or in TRACKIO_DIR; always on this computer."""
    os.environ.setdefault("TRACKIO_DIR", str(OUTPUT / "trackio"))
    import trackio
    from trackio.api import Run as Stored
    from trackio.utils import TRACKIO_DIR

    Stored(PROJECT, run.name, f"farense-{began}").delete()
    settings = run.config.model_dump(mode="json")
    copy = trackio.Run(None, PROJECT, None, run.name, f"farense-{began}", config=settings)

    def write(rows: Rows) -> None:
        for step, _, numbers in rows:
            copy.log(numbers, step)

    try:
        yield f"TRACKIO_DIR={quote(str(TRACKIO_DIR))} trackio show --project {PROJECT}", write
    finally:
        copy.finish()


TRACKERS: dict[str, Callable[[Run, int], AbstractContextManager[Opened]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}
