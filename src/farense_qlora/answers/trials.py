"""Several settings tried one after the other, the hopeless ones no longer than it takes to see that they are:
successive halving (Jamieson & Talwalkar, 2016) on the validation loss.

All that trials are lies on the disk: `plan.json` and `results.jsonl` in a folder, and an ordinary run for
each config. A process of its own, `main`, works through them; whoever looks at them reads the files.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from ..config import RUNS, Config
from ..errors import UserError
from ..files import atomic_write
from ..table import Drawn, Table
from ..text import decimal
from ..training.cost import estimate
from ..training.events import Evaluated, Started, last, of
from ..training.numbers import WHOLE
from ..training.overview import setting
from ..training.requests import STOP
from ..training.run import POLL_SECONDS, Run, all_runs
from ..training.start import start
from ..training.worker import is_locked, take_lock
from .intervals import mean_interval

FOLDER, PREFIX = RUNS / ".ensaios", "ensaio-"
SHARES = (1 / 9, 1 / 3, 1.0)  # of a training, after which only the best third goes on
EARLY = 0.8  # of such a share: where it ends is known but about before training began
WORK = """
import sys
from farense_qlora.model import cpu
cpu.enable()  # before anything imports mlx
from farense_qlora.answers.trials import main
main(sys.argv[1])
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What trial number `trial` came to at the end of share number `rung`, after `step` updates: the loss of
    each row of the validation in nats, and how many tokens of it are supervised; or why it `failed`."""

    trial: int
    rung: int
    step: int = 0
    losses: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    failed: str = ""

    @property
    def loss(self) -> float:
        """Mean loss a token; infinite for one that failed."""
        return math.inf if self.failed else sum(self.losses) / sum(self.tokens)


class Trials(Drawn):
    """The trials in `folder`, under way or ended: a run of each of the `configs`. Draws what was found."""

    def __init__(self, folder: Path):
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        self.folder, self.shares, self.deadline = folder, tuple(plan["shares"]), plan["deadline"]
        self.eval_every = plan["eval_every"]
        self.configs = [Config.parse(values) for values in plan["configs"]]

    @property
    def alive(self) -> bool:
        """Whether somebody is at it."""
        return is_locked(self.folder)

    def run(self, trial: int) -> Run:
        """The run of config number `trial`."""
        return Run(self.folder.parents[1] / f"{self.folder.name}-{trial + 1:02d}")

    @property
    def runs(self) -> list[Run]:
        """The runs that have begun."""
        runs = [self.run(trial) for trial in range(len(self.configs))]
        return [run for run in runs if run.folder.exists()]

    def settings(self, run: Run) -> str:
        """In what the config of `run`, one of the `runs`, differs from the others, in the table's order."""
        config = self.configs[int(run.name.rpartition("-")[2]) - 1]
        return " / ".join(setting(getattr(config, name)) for name in self.varied) or run.name

    @property
    def results(self) -> list[Result]:
        """What is known so far, in the order in which it was measured."""
        path = self.folder / "results.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [Result(**json.loads(line)) for line in lines]

    @property
    def next(self) -> tuple[int, int] | None:
        """The trial to train next, and up to which share; None when there is nothing left to try."""
        results, going_on = self.results, [*range(len(self.configs))]
        for rung, share in enumerate(self.shares):
            if len(going_on) == 1 < len(self.configs) and share < 1:
                continue  # there is nothing to choose from
            known = {result.trial: result for result in results if result.rung == rung}
            if left := [trial for trial in going_on if trial not in known]:
                return left[0], rung
            good = [known[trial] for trial in going_on if not known[trial].failed]
            best = sorted(good, key=lambda result: result.loss)[: math.ceil(len(good) / 3)]
            going_on = [result.trial for result in best]
        return None

    @property
    def best(self) -> Config:
        """The config with the lowest validation loss of those that got furthest; raises `UserError` while
        there is none."""
        if (found := self._best()) is None:
            raise UserError("os ensaios ainda não mediram nada: espere pelo primeiro")
        return self.configs[found.trial]

    def _best(self) -> Result | None:
        good = [result for result in self.results if not result.failed]
        return min(good, key=lambda result: (-result.rung, result.loss), default=None)

    @cached_property
    def varied(self) -> list[str]:
        """The settings in which the configs differ."""
        first, *others = self.configs
        return [name for name, value in first if any(getattr(other, name) != value for other in others)]

    def table(self) -> Table:
        """A row for each trial, the best first: its settings, how far it got, its loss, and how much more
        that is than what the best one had at that point, with the paired interval over the rows."""
        results, best = {result.trial: result for result in self.results}, self._best()
        at = {(result.trial, result.rung): result for result in self.results}
        order = sorted(results.values(), key=lambda result: (-result.rung, result.loss))
        waiting = [Result(trial=trial, rung=-1) for trial in range(len(self.configs)) if trial not in results]
        rows = []
        for result in [*order, *waiting]:
            config = self.configs[result.trial]
            step = loss = None
            apart, verdict = "", result.failed or "por fazer"
            if result.tokens and best:
                step, loss = result.step, result.loss
                apart, verdict = _against(result, at[best.trial, result.rung])
            rows.append((*(getattr(config, name) for name in self.varied), step, loss, apart, verdict))
        columns = [str(Config.model_fields[name].title) for name in self.varied]
        columns += ["atualizações", "perda de validação", "a mais do que a melhor [95 %]", "veredicto"]
        state = "a decorrer" if self.alive else "terminados" if self.next is None else "parados"
        caption = f"Ensaios {self.folder.name} ({state})"
        formats: dict[str, Callable[[Any], str]] = dict.fromkeys(columns, setting)
        formats |= {"atualizações": WHOLE, "perda de validação": decimal}
        return Table(rows, columns=columns, formats=formats, caption=caption)

    def stop(self) -> None:
        """Save and stop what is under way, and begin nothing; gone on with, it continues from there."""
        (self.folder / STOP).touch()

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for."""
        return (self.folder / STOP).exists()

    @property
    def over(self) -> bool:
        """Whether no other training is to begin: a stop was asked for, or the time is over."""
        return self.stopped or time.time() > (self.deadline or math.inf)

    def wait(self) -> "Trials":
        """Block until they end."""
        while self.alive:
            time.sleep(POLL_SECONDS)
        return self


def _against(result: Result, best: Result) -> tuple[str, str]:
    """How much larger the loss of `result` is than that of the `best` trial after as much training, and what
    that means."""
    if result is best or result.trial == best.trial:
        return "", "recomendada"
    apart = [mine - its for mine, its in zip(result.losses, best.losses, strict=True)]
    low, high = mean_interval(apart, result.tokens)
    verdict = "dentro do ruído" if low <= 0 <= high else "pior" if low > 0 else "melhor até aí"
    return f"{decimal(result.loss - best.loss)} [{decimal(low)}; {decimal(high)}]", verdict


def trials(
    config: Config | Sequence[Config] | None = None, minutes: float | None = None, **values: Sequence[Any]
) -> Trials:
    """Try `config` with every combination of the `values` of some settings, in a process that outlives this
    one, for at most so many `minutes`: all train a ninth of their updates, the best third of them a third,
    and the best third of those all. Several configs train whole, one after the other. Without a config the
    newest trials are shown again, and gone on with if nobody is at them.

    Raises `UserError` while other trials are under way, and on settings that cannot be.

    >>> fq.trials([config.changed(max_steps=1)]).wait().best.max_steps
    1
    """
    if config is None:
        return newest(go_on=True)
    if other := next(filter(is_locked, FOLDER.glob("*")), None):
        raise UserError(
            f"os ensaios «{other.name}» ainda estão a decorrer: espere que acabem, ou pare-os com "
            "«farense-qlora queue --stop»"
        )
    shares = SHARES if values else (1.0,)
    configs = [
        one.changed(**dict(zip(values, some, strict=True)))
        for one in ([config] if isinstance(config, Config) else config)
        for some in product(*values.values())
    ]
    eval_every = []  # of each: often enough to see how it stands where it may have to end
    for one in configs:
        updates = estimate(one, on_cpu=True).updates if values else None  # the same anywhere
        eval_every.append(max(1, round(shares[0] * updates)) if updates else one.eval_every)
    deadline = time.time() + 60 * minutes if minutes else None
    folder = FOLDER / f"{PREFIX}{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    with atomic_write(folder / "plan.json") as path:
        plan = {
            "configs": [one.model_dump() for one in configs],
            "eval_every": eval_every,
            "shares": shares,
            "deadline": deadline,
        }
        path.write_text(json.dumps(plan, ensure_ascii=False, indent=1), encoding="utf-8")
    return _go_on(folder)


def _go_on(folder: Path) -> Trials:
    """Work through the trials in `folder`, from where they are; nothing when somebody is at it."""
    if (lock := take_lock(folder)) is not None:
        with lock, open(folder / "log", "ab") as log:
            (folder / STOP).unlink(missing_ok=True)
            subprocess.Popen(
                [sys.executable, "-c", WORK, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
    return Trials(folder)


def newest(go_on: bool = False) -> Trials:
    """The newest trials, gone on with if `go_on`; raises `UserError` if there are none."""
    if not (known := sorted(plan.parent for plan in FOLDER.glob("*/plan.json"))):
        raise UserError("ainda não há ensaios: comece-os com fq.trials(config, rank=[8, 16, 32])")
    return _go_on(known[-1]) if go_on else Trials(known[-1])


def main(folder: str) -> None:
    """Train and measure what is left to do of the trials in `folder`."""
    under_way = Trials(Path(folder))
    while (following := under_way.next) is not None:
        name = under_way.run(following[0]).name
        while not under_way.over and any(run.alive for run in all_runs() if run.name != name):
            time.sleep(POLL_SECONDS)  # somebody trains something else
        if under_way.over or (result := _try(under_way, *following)) is None:
            return
        lines = [json.dumps(asdict(one)) + "\n" for one in (*under_way.results, result)]
        with atomic_write(under_way.folder / "results.jsonl") as path:
            path.write_text("".join(lines), encoding="utf-8")


def _try(under_way: Trials, trial: int, rung: int) -> Result | None:
    """Train number `trial` up to the share number `rung` of its updates, or until the time is over, and
    measure it; None when a stop is asked for before it is there."""
    config, share = under_way.configs[trial], under_way.shares[rung]
    config = config.changed(eval_every=under_way.eval_every[trial])
    run = under_way.run(trial)
    try:
        if not _is_at(run, share):
            if not run.alive:  # else it outlived the process that began it
                run = start(config, run.name)
            asked = False
            for event in run.follow():
                enough = isinstance(event, Evaluated) and share < 1 and _is_at(run, share)
                if not asked and (enough or under_way.over):
                    asked = True
                    run.stop()
                    if enough:
                        run.stop()  # at once: it was evaluated just now
            if under_way.stopped and not _is_at(run, share):
                return None
        return _measured(run, config, trial, rung)
    except UserError as error:
        return Result(trial=trial, rung=rung, failed=str(error))


def _is_at(run: Run, share: float) -> bool:
    """Whether `run` was evaluated after a `share` of its updates."""
    if not run.folder.exists():
        return False
    events = run.events()
    started, evaluated = last(events, Started), of(events, Evaluated)
    reached = evaluated[-1].step if evaluated else 0
    return started is not None and reached >= (EARLY if share < 1 else 1) * share * started.total_steps


def _measured(run: Run, config: Config, trial: int, rung: int) -> Result:
    """What the best adapter of `run` comes to on its validation, row by row."""
    import mlx.core as mx

    from ..data.load import load_data
    from ..model.base import load_tuned
    from .perplexity import token_scores

    tuned = load_tuned(config, run.best_adapter)
    scores = token_scores(tuned, load_data(config, tuned).validation)
    del tuned  # the next trainer needs the memory
    mx.clear_cache()
    return Result(
        trial=trial,
        rung=rung,
        step=of(run.events(), Evaluated)[-1].step,
        losses=scores.row_losses,
        tokens=scores.row_tokens,
    )
