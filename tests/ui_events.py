"""Events of a run that never was, for figures and tables."""

from farense_qlora.training.events import Evaluated, Event, Finished, Saved, Started, Stepped


def events(steps: int = 60, reason: str = "completed") -> list[Event]:
    """A run of `steps` updates, 20 an epoch, evaluated every 20: losses fall to 0.4 (training) and 0.5."""
    made: list[Event] = [
        Started(0, 0.0, 60, 20, 320, 40, 0, 1000, 100_000),
        Evaluated(0, 0.0, 0.0, 2.5, True, 0.1),
    ]
    for step in range(1, steps + 1):
        loss = 0.4 + 2 / step
        made.append(Stepped(step, float(step), step / 20, loss, 1e-3, 1.0, 100, 300, 320, 0.5, 0.25))
        if step % 20 == 0:
            made += [
                Evaluated(step, float(step), step / 20, loss + 0.1, True, 0.1),
                Saved(step, float(step), "x"),
            ]
    made.append(Finished(steps, 100.0, reason, steps, 0.5, 31.0))
    return made
