"""What training says as it goes: frozen events that round-trip through JSON, and each of them in words."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from ..text import decimal, plain, size


@dataclass(frozen=True, kw_only=True)
class Event:
    """Common to all: `step` counts finished updates, `time` is Unix time in seconds."""

    step: int
    time: float = field(default_factory=lambda: time.time())

    def to_json(self) -> str:
        """The event as one line of `events.jsonl`, without its end; see `from_json`."""
        return json.dumps({"event": type(self).__name__, **asdict(self)}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training is about to begin (or to go on, when `step` > 0)."""

    total_steps: int
    steps_per_epoch: float
    train_rows: int
    val_rows: int
    truncated_rows: int
    trainable_parameters: int
    total_parameters: int
    repeated_rows: int = 0  # left out of either set
    notes: tuple[str, ...] = ()  # what was made of the data, in Portuguese
    from_adapter: str = ""  # whose weights it began with
    elsewhere: str = ""  # what computes now and did not before, in Portuguese
    predicted_gb: float | None = None  # of memory, at most
    predicted_seconds: float | None = None  # an update of one; None where `fit` has measured none
    hosts: tuple[str, ...] = ()  # the computers that train together, by name


@dataclass(frozen=True, kw_only=True)
class Stepped(Event):
    """One update: `loss` in nats a supervised token; counts and `seconds` are of this update alone.

    Of the `positions` that were computed, `tokens` hold a token and the others are padding. `host_speeds` and
    `host_memory_gb` are the tokens a second of each computer's own share, and the most memory it has held.
    """

    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    supervised_tokens: int
    tokens: int
    positions: int
    seconds: float
    peak_memory_gb: float
    host_speeds: tuple[float, ...] = ()
    host_memory_gb: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """The whole validation set: mean `loss` a supervised token; `best` if no earlier one was lower, that of
    the untrained adapter at step 0 apart. `general_loss` is that of texts about other things."""

    epoch: float
    loss: float
    best: bool
    seconds: float
    general_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """What the model answers, right after an evaluation, to a few fixed `questions` of the validation set;
    `expected` are the true answers."""

    questions: tuple[str, ...]
    expected: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A checkpoint was written whole; `path` is relative to the run folder."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """An update without effect, since its loss or its gradient was not finite: `cause` says which.

    `rows` names the rows that were in it, as "file:line".
    """

    epoch: float
    cause: str
    rows: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """Too many updates in a row were skipped: training goes on from the checkpoint at `step`, with the peak
    `learning_rate` halved; what was done since is undone."""

    path: str
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Cramped(Event):
    """One of the computers has less memory free, `free_gb`, than the `predicted_gb` of this training."""

    host: str
    free_gb: float
    predicted_gb: float


@dataclass(frozen=True, kw_only=True)
class Copied(Event):
    """So many `gb` of the model, of `whole_gb`, have gone to the `hosts` that had none."""

    hosts: tuple[str, ...]
    gb: float
    whole_gb: float


@dataclass(frozen=True, kw_only=True)
class Missing(Event):
    """Training goes on without some of its `hosts`, which do not answer; they are taken in when they do."""

    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Slowed(Event):
    """Training has become slow, for a `cause`, in Portuguese, that can be mended."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Spiked(Event):
    """The loss of this update lies far above those before it: `bound` is median + 8 robust deviations."""

    loss: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class RateChanged(Event):
    """The peak learning rate is another from here on, at the user's request."""

    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Paused(Event):
    """Training waits; `cause` is "asked", or what keeps it from saving, in Portuguese."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """Training goes on after a pause."""


@dataclass(frozen=True, kw_only=True)
class Restarted(Event):
    """The trainer ended for a `cause`, in Portuguese, and is started again after `pause` seconds from the
    checkpoint of `step` (-1: from the beginning), its micro-batches halved `splits` times."""

    cause: str
    pause: float
    splits: int


@dataclass(frozen=True, kw_only=True)
class Discarded(Event):
    """The checkpoint `path` was damaged and the one before it is taken; `reason` is in Portuguese."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The end; `reason` is "completed", "early_stopping" or "stopped"."""

    reason: str
    best_step: int
    best_loss: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Merged(Event):
    """The adapter was not trained: it is the sum of those of `runs`, each times its weight."""

    runs: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The worker gave up; `message` is for the user, in Portuguese."""

    message: str


TYPES: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__subclasses__()}


def from_json(line: str | bytes) -> Event | None:
    """The event in a line of `events.jsonl`; None when it holds none."""
    try:
        values: dict[str, Any] = json.loads(line)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return TYPES[values.pop("event")](**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


E = TypeVar("E", bound=Event)


def of(events: Iterable[Event], *kinds: type[E]) -> list[E]:
    """Those of `events` that are of one of `kinds`, in order."""
    return [event for event in events if isinstance(event, kinds)]


def last(events: Sequence[Event], *kinds: type[E]) -> E | None:
    """The last of `events` that is of one of `kinds`, if there is any."""
    return next((event for event in reversed(events) if isinstance(event, kinds)), None)


def best_of(events: Sequence[Event]) -> Evaluated | None:
    """The evaluation whose adapter was kept as the best, if there is any."""
    return next((event for event in reversed(of(events, Evaluated)) if event.best), None)


ENDINGS = {
    "completed": "terminado",
    "early_stopping": "terminado, porque a validação deixou de melhorar",
    "stopped": "parado a pedido e guardado",
}
STOPPING = "a atualização em curso acaba, fica guardada e é avaliada"


def sentence(event: Event) -> str | None:
    """What a person should hear of `event`, in Portuguese; None for what goes as it should."""
    step = f"passo {event.step}"
    match event:
        case Started(step=done, elsewhere=elsewhere, hosts=hosts) if done:
            on = f"; treina em {', '.join(hosts)}" if hosts else ""
            return f"continua do ponto de controlo do {step}" + (f"; {elsewhere}" if elsewhere else "") + on
        case Started(notes=notes, from_adapter=adapter, hosts=hosts) if notes or adapter or hosts:
            said = [f"partiu de {adapter}"] if adapter else []
            said += [f"treina em {len(hosts)} computadores: {', '.join(hosts)}"] if hosts else []
            return "\n".join([*said, *notes])
        case Restarted(step=done, cause=cause, pause=pause, splits=splits):
            where = f"do ponto de controlo do {step}" if done >= 0 else "do princípio"
            after = f", daqui a {pause:.0f} s" if pause else ""
            smaller = f", com micro-lotes até {2**splits} vezes menores" if splits else ""
            return f"o processo que treina acabou ({cause}) e recomeça {where}{after}{smaller}"
        case Discarded(path=path, reason=reason):
            return f"{path} está estragado ({reason}): usa-se o anterior"
        case Skipped(cause=cause, rows=rows):
            shown = ", ".join(rows[:4]) + (" …" if len(rows) > 4 else "")
            return f"{step} saltado: {cause}; {'linha' if len(rows) == 1 else 'linhas'} {shown}"
        case RolledBack(path=path, learning_rate=rate):
            return f"volta a {path} com a taxa de aprendizagem reduzida para {plain(rate)}"
        case Spiked(loss=loss, bound=bound):
            usual = f"o habitual fica abaixo de {decimal(bound)}"
            return f"{step}: perda fora do comum, {decimal(loss)} ({usual})"
        case Cramped(host=host, free_gb=free, predicted_gb=needed):
            return f"em {host} há {size(free)} de memória livres, e o treino deve precisar de {size(needed)}"
        case Copied(hosts=hosts, gb=gb, whole_gb=whole):
            return f"a copiar o modelo para {' e '.join(hosts)}: {size(gb)} de {size(whole)}"
        case Missing(hosts=hosts):
            return f"sem resposta de {' e '.join(hosts)}: treina com os outros, e volta a experimentar"
        case Slowed(cause=cause):
            return f"{step}: o treino abrandou mais de um terço; este computador {cause}"
        case RateChanged(learning_rate=rate):
            return f"{step}: taxa de aprendizagem mudada para {plain(rate)}"
        case Paused(cause="asked"):
            return f"em pausa no {step}"
        case Paused(cause=cause):
            return f"em pausa no {step}: {cause}; continua quando houver espaço"
        case Resumed():
            return "continua"
        case Finished(reason=reason):
            return f"treino {ENDINGS[reason]}"
        case Merged(runs=runs, weights=weights):
            parts = [f"{run} × {plain(weight)}" for run, weight in zip(runs, weights, strict=True)]
            return f"junta os adaptadores de {' e '.join(parts)}"
        case Failed(message=message):
            return message
    return None


def sentences(events: Iterable[Event]) -> list[str]:
    """What a person should hear of `events` before the end, in order; not that a trainer which was started
    again goes on, since that was said when it was."""
    told = []
    for before, event in pairwise([None, *events]):
        known = isinstance(before, Restarted) and isinstance(event, Started)
        if event and not known and not isinstance(event, Finished) and (text := sentence(event)):
            told.append(text)
    return told
