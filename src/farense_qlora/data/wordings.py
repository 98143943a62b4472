"""The wordings of the questions: data, in data/questions/, that whoever owns the facts can edit."""

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from itertools import chain, cycle
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import UserError, invalid, reason
from ..text import counted
from .language import Club, competition, sentence, with_article

ROLES = ("user", "assistant")  # who speaks in turn
UNANSWERABLE = "unanswerable"  # the file of what no table answers, beside those of the tables
# What stands for a value, {equipa} or {equipa:por}; a brace alone is a mark without a name.
MARK = re.compile(r"\{(\w+(?::\w+)?)\}|[{}]")
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

    def messages(self, prompt: str) -> tuple[dict[str, str], ...]:
        """The conversation that begins with `prompt`."""
        said = chain((prompt, self.answer), *self.followups)
        return tuple({"role": role, "content": text} for role, text in zip(cycle(ROLES), said, strict=False))

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is said, by either side."""
        return (*self.prompts, *self.heldout, *self.other, self.answer, self.full, *chain(*self.followups))


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
        forms = self.club.forms

        def said(mark: re.Match[str]) -> str:
            name = mark[1] or ""  # a brace alone is none
            if name in forms:
                return forms[name]
            key, _, form = name.partition(":")
            value = values[key]
            if not form or value == "":  # {rival}: as it is
                return str(value)
            if isinstance(value, int):  # {golos:golo}: "1 golo", "2 golos"
                return counted(value, form)
            # {rival:com}: after that preposition; {rival:o}: with its article alone
            return with_article(competition(value), "" if form == "o" else form)

        def filled(text: str) -> str:
            try:
                text = MARK.sub(said, text)
                return text[:1].upper() + text[1:]
            except KeyError:
                known = ", ".join([*forms, *values])
                raise UserError(
                    f"{self.file}, «{name}»: não sei preencher «{text}»; os valores são {known}"
                ) from None

        table = self.file.stem
        answer = sentence(filled(template.answer if yes else template.no))
        return Question(
            kind=template.kind,
            table=table,
            subject=subject,
            fact="/".join(filter(None, (table, subject, name if part is None else part))),
            prompts=tuple(map(filled, template.train)),
            heldout=tuple(map(filled, template.heldout)),
            other=tuple(map(filled, template.other)),
            answer=answer,
            full=sentence(filled(template.full)) if yes and template.full else answer,
            followups=tuple(
                (filled(question), sentence(filled(answer))) for question, answer in template.followups
            ),
            guessable=guessable,
        )


def read_templates(file: Path, allowed: Collection[str] = ()) -> dict[str, Template]:
    """The entries of `file` by name; raises `UserError` naming file and entry.

    Where entries are `allowed` by name, another one is an error: nothing would ever ask it.
    """
    try:
        templates = _templates(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"não consigo ler {file}: {reason(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} não é TOML válido: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file}, «{'.'.join(map(str, first['loc']))}»: {invalid(first)}") from None
    if unknown := sorted(templates.keys() - allowed) if allowed else []:
        known = ", ".join(sorted(allowed))
        raise UserError(f"{file}: nada pergunta por «{unknown[0]}»; as entradas são {known}")
    return templates


@cache
def _templates(toml: str) -> dict[str, Template]:
    return TypeAdapter(dict[str, Template]).validate_python(tomllib.loads(toml))
