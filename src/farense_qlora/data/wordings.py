"""The wordings of the questions: data, in data/questions/, that whoever owns the facts can edit."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import UserError, reason
from .language import CONTRACTIONS, Club, capital, competition, counted, sentence, with_article

UNANSWERABLE = "unanswerable"  # the file of what no table answers, beside those of the tables
Texts = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A fact as it is asked and answered; every prompt has the same `answer`, or `full`, the same in a whole
    sentence. Nothing is trained on `heldout`, nor on `other`, whose structure no training wording has.

    `subject` is what the fact is about: a season, a name. `followups` are (prompt, answer) pairs that go on
    with the conversation. `guessable`: an answer may well be right by chance, so that the question proves
    nothing about facts that were held out.
    """

    kind: str
    table: str
    subject: str
    fact: str
    prompts: tuple[str, ...]
    heldout: tuple[str, ...]
    other: tuple[str, ...]
    answer: str
    full: str
    followups: tuple[tuple[str, str], ...] = ()
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
        later = [text for turn in self.followups for text in turn]
        return (*self.prompts, *self.heldout, *self.other, self.answer, self.full, *later)


class Template(BaseModel):
    """How one thing is asked and answered: an entry of a TOML file.

    `heldout` and `other` are never trained on. `full` is the answer in a whole sentence, where `answer` is
    none; `no` is the answer when the thing is not so. `value` and `needs` are for the club's own table: what
    the value of a row must look like, and the rows whose answers are put together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["facto", "conta", "sim-nao", "comparacao", "conversa", "sem-resposta"] = "facto"
    train: Texts
    heldout: Texts
    other: tuple[str, ...] = ()
    answer: str
    full: str = ""
    no: str = ""
    followups: tuple[tuple[str, str], ...] = ()
    value: re.Pattern[str] = re.compile("(.+)")
    needs: tuple[str, ...] = ()


class Noun(str):
    """A name; "{rival:com}" gives it its article after that preposition, "{rival:o}" the article alone."""

    def __format__(self, preposition: str) -> str:
        if not preposition or not self:
            return str(self)
        if preposition != "o" and preposition not in CONTRACTIONS:
            raise ValueError(preposition)
        return with_article(competition(self), "" if preposition == "o" else preposition)


class Count(int):
    """A number; "{golos:golo}" says of what: "1 golo", "2 golos"."""

    def __format__(self, noun: str) -> str:
        return counted(self, noun) if noun else str(int(self))


@dataclass(frozen=True)
class Wordings:
    """The templates of one table, of `file`, as they are filled for `club`."""

    file: Path
    templates: dict[str, Template]
    club: Club

    def ask(
        self, name: str, subject: str, part: str | None = None, *, yes: bool = True, guessable: bool = False,
        **values: str | int,
    ) -> Question:  # fmt: skip
        """The question `name` about `subject`, with the club and the `values` put into its texts.

        `part` tells it from the other facts about the subject; it is `name` when left out. `yes` chooses
        between the template's two answers. Raises `UserError` for a mark that stands for nothing.
        """
        template = self.templates.get(name)
        if template is None:
            raise UserError(f"{self.file}: falta a entrada «{name}»")
        if not yes and not template.no:
            raise UserError(f"{self.file}, «{name}»: falta o campo «no»")
        known = self.club.forms | {
            key: Noun(value) if isinstance(value, str) else Count(value) for key, value in values.items()
        }

        def filled(text: str) -> str:
            try:
                return capital(text.format_map(known))
            except (KeyError, ValueError, IndexError, AttributeError):
                raise UserError(
                    f"{self.file}, «{name}»: não sei preencher «{text}»; os valores são {', '.join(known)}"
                ) from None

        table = self.file.stem
        return Question(
            kind=template.kind,
            table=table,
            subject=subject,
            fact="/".join(filter(None, (table, subject, name if part is None else part))),
            prompts=tuple(map(filled, template.train)),
            heldout=tuple(map(filled, template.heldout)),
            other=tuple(map(filled, template.other)),
            answer=(answer := sentence(filled(template.answer if yes else template.no))),
            full=sentence(filled(template.full)) if template.full and yes else answer,
            followups=tuple(
                (filled(prompt), sentence(filled(answer))) for prompt, answer in template.followups
            ),
            guessable=guessable,
        )


def read_templates(file: Path, allowed: Iterable[str] = ()) -> dict[str, Template]:
    """The entries of `file` by name; raises `UserError` naming file and entry.

    Where entries are `allowed` by name, another one is an error: nothing would ever ask it.
    """
    try:
        return _read(file, file.stat().st_mtime_ns, frozenset(allowed))
    except OSError as error:
        raise UserError(f"não consigo ler {file}: {reason(error)}") from None


@cache
def _read(file: Path, _changed: int, allowed: frozenset[str]) -> dict[str, Template]:
    try:
        templates = TypeAdapter(dict[str, Template]).validate_python(tomllib.loads(file.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} não é TOML válido: {error}") from None
    except ValidationError as error:
        found = error.errors()[0]
        entry, *place = map(str, found["loc"])
        where, name = f"{file}, «{entry}»", ".".join(place) or entry
        if found["type"] == "missing":
            raise UserError(f"{where}: falta o campo «{name}»") from None
        if found["type"] == "extra_forbidden":
            raise UserError(f"{where}: não há o campo «{name}»") from None
        raise UserError(f"{where}: não serve o que está em «{name}»") from None
    unknown = sorted(templates.keys() - allowed) if allowed else []
    if unknown:
        raise UserError(
            f"{file}: nada pergunta por «{unknown[0]}»; as entradas são {', '.join(sorted(allowed))}"
        )
    return templates
