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
        Started(
            step=0,
            time=0.0,
            total_steps=60,
            steps_per_epoch=20,
            train_rows=320,
            val_rows=40,
            truncated_rows=0,
            trainable_parameters=1000,
            total_parameters=100_000,
        ),
        Evaluated(step=0, time=0.0, epoch=0.0, loss=2.5, best=True, seconds=0.1),
    ]
    for step in range(1, steps + 1):
        loss = 0.4 + 2 / step
        made.append(
            Stepped(
                step=step,
                time=float(step),
                epoch=step / 20,
                loss=loss,
                learning_rate=1e-3,
                grad_norm=1.0,
                supervised_tokens=100,
                tokens=300,
                positions=320,
                seconds=0.5,
                peak_memory_gb=0.25,
            )
        )
        if step % 20 == 0:
            made += [
                Evaluated(
                    step=step, time=float(step), epoch=step / 20, loss=loss + 0.1, best=True, seconds=0.1
                ),
                Saved(step=step, time=float(step), path="x"),
            ]
    made.append(Finished(step=steps, time=100.0, reason=reason, best_step=steps, best_loss=0.5, seconds=31.0))
    return made


def sampled(step: int, *answers: str) -> Sampled:
    return Sampled(step=step, time=float(step), questions=QUESTIONS, expected=EXPECTED, answers=answers)


def write_run(folder: Path, written: Sequence[Event], **settings: object) -> Run:
    """The run folder of a miniature with `settings` that left the events `written`."""
    folder.mkdir(parents=True, exist_ok=True)
    Config.of("mini", **settings).write(folder / "config.json")
    (folder / "events.jsonl").write_text(
        "".join(event.to_json() + "\n" for event in written), encoding="utf-8"
    )
    return Run(folder)
