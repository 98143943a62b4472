"""What a question is: one fact, several wordings, one answer; some wordings are kept for validation."""

from dataclasses import dataclass
from typing import Any

from ..language import Club

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Wordings:
    """Ways to ask the same thing. `heldout` ones are never trained on, for any fact."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A fact as it is asked and answered; every prompt has the same `answer`.

    `followups` are (prompt, answer) pairs that go on with the conversation. `guessable`: an answer may well
    be right by chance, so that the question proves nothing about facts that were held out.
    """

    kind: str
    table: str
    fact: str
    prompts: tuple[str, ...]
    heldout: tuple[str, ...]
    answer: str
    followups: Turns = ()
    guessable: bool = False

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """The conversation that begins with `prompt`."""
        turns = ((prompt, self.answer), *self.followups)
        return [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is said, by either side."""
        return (
            *self.prompts,
            *self.heldout,
            self.answer,
            *(text for turn in self.followups for text in turn),
        )


def ask(
    kind: str, fact: str, wordings: Wordings, answer: str, club: Club, followups: Turns = (), *,
    guessable: bool = False, **keys: Any,
) -> Question:  # fmt: skip
    """The question with the club and the `keys` put into its wordings; `fact` begins with its table."""
    values = {**club.forms, **keys}

    def filled(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text.format_map(values) for text in texts)

    return Question(
        kind, fact.split("/", 1)[0], fact, filled(wordings.train), filled(wordings.heldout), answer,
        tuple((prompt.format_map(values), reply) for prompt, reply in followups), guessable,
    )  # fmt: skip
