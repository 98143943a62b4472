"""What happens in a run, in words: one home for what terminal, notebook and reports say of an event."""

from ..text import decimal, plain
from .events import (
    Discarded,
    Event,
    Failed,
    Finished,
    Paused,
    RateChanged,
    Resumed,
    RolledBack,
    Skipped,
    Spiked,
    Started,
)

ENDINGS = {
    "completed": "terminado",
    "early_stopping": "terminado: a validação deixou de melhorar",
    "stopped": "parado a pedido e guardado",
}


def sentence(event: Event) -> str | None:
    """What a person should hear of `event`, in Portuguese; None for what goes as it should."""
    step = f"passo {event.step}"
    match event:
        case Started(step=done) if done:
            return f"continua do ponto de controlo do {step}"
        case Started(notes=notes, from_adapter=adapter) if notes or adapter:
            return "\n".join([*([f"partiu de {adapter}"] if adapter else []), *notes])
        case Started(repeated_rows=rows) if rows:
            return f"linhas repetidas que ficam de fora: {rows}"
        case Discarded(path=path, reason=reason):
            return f"{path} está estragado ({reason}): usa-se o anterior"
        case Skipped(cause=cause, rows=rows):
            return f"{step} saltado: {cause}; linhas {', '.join(rows[:4])}{' …' if len(rows) > 4 else ''}"
        case RolledBack(path=path, learning_rate=rate):
            return f"volta a {path} com a taxa de aprendizagem reduzida para {plain(rate)}"
        case Spiked(loss=loss, bound=bound):
            return (
                f"{step}: perda fora do comum, {decimal(loss)} (o habitual fica abaixo de {decimal(bound)})"
            )
        case RateChanged(learning_rate=rate):
            return f"{step}: taxa de aprendizagem mudada para {plain(rate)}"
        case Paused(cause=cause):
            return f"em pausa no {step}" + (
                "" if cause == "asked" else f": {cause}; continua quando houver espaço"
            )
        case Resumed():
            return "continua"
        case Finished(reason=reason):
            return f"treino {ENDINGS[reason]}"
        case Failed(message=message):
            return message
    return None


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
