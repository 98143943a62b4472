"""Events of a run that never was, for figures and tables."""

from collections.abc import Sequence
from pathlib import Path

from farense_qlora.config import Config
from farense_qlora.training.events import Evaluated, Event, Finished, Sampled, Saved, Started, Stepped
from farense_qlora.training.run import Run

QUESTIONS, EXPECTED = ("Quem treinou?", "Em que ano?"), ("Paco Fortes.", "Em 1990.")


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


def sampled(step: int, *answers: str) -> Sampled:
    return Sampled(step, float(step), QUESTIONS, EXPECTED, answers)


def write_run(folder: Path, written: Sequence[Event], **settings: object) -> Run:
    """The run folder of a miniature with `settings` that left the events `written`."""
    folder.mkdir(parents=True, exist_ok=True)
    Config.of("mini", **settings).write(folder / "config.json")
    (folder / "events.jsonl").write_text(
        "".join(event.to_json() + "\n" for event in written), encoding="utf-8"
    )
    return Run(folder)
