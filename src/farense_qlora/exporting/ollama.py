"""The Modelfile of an export, with the chat template in Ollama's language: read off conversations that the
model's own template writes."""

import re
from dataclasses import dataclass
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.template import Template
from ..data.turns import write_prompt
from ..errors import UserError
from ..templates import render
from ..text import counted
from .formats import GGUF

# Questions of the conversations that are read; a template that holds for these is taken to hold for more.
QUESTIONS = 4
# Stand in for the texts of these conversations; no template has them.
MARK = "\ue000{}\ue001"
SYSTEM = MARK.format("system")
LAST = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"


def write_modelfile(tokenizer: TokenizerWrapper, max_tokens: int, folder: Path) -> None:
    """What `ollama create` reads, beside the GGUF file: greedy answers, the template, where to stop; raises
    `UserError` as `go_template` does."""
    text = render(
        "exporting/templates/Modelfile.j2",
        gguf=GGUF,
        max_tokens=max_tokens,
        stops=[tokenizer.decode([token]) for token in sorted(tokenizer.eos_token_ids)],
        template=go_template(tokenizer),
    )
    (folder / "Modelfile").write_text(text, encoding="utf-8")


def go_template(tokenizer: TokenizerWrapper) -> str:
    """The chat template in Ollama's language, without the first token, which Ollama adds; raises `UserError`,
    with the reason, for one that does not write each turn alike."""
    try:
        found = _learn(tokenizer)
        for questions in range(1, QUESTIONS + 1):
            for system in (False, True):
                if found.written(questions, system) != _gaps(tokenizer, questions, system):
                    where = "com mensagem de sistema" if system else f"com {counted(questions, 'pergunta')}"
                    raise ValueError(f"numa conversa {where} não escreve cada mensagem da mesma maneira")
        if '"""' in (text := found.in_go()):
            raise ValueError('tem """, que um Modelfile não pode ter')
    except ValueError as error:
        raise UserError(
            f"não sei escrever o modelo de conversa (chat template) deste modelo para o Ollama: {error}"
        ) from None
    return text


@dataclass(frozen=True, kw_only=True)
class _Template:
    """What stands around the turns: `opening` before all (but not before a system text that comes `first`),
    `system` and `system_end` around that text, which else is in the last question's turn, `user` before a
    question, `end` after the last, `asked` after others, `answered` after an answer."""

    first: bool
    opening: str
    system: str
    system_end: str
    user: str
    end: str
    asked: str
    answered: str

    def written(self, questions: int, system: bool) -> list[str]:
        """What `_gaps` finds in a conversation, if the model's template is this one."""
        system_text = f"{self.system}{SYSTEM}{self.system_end}"
        text = system_text if system and self.first else self.opening
        for number in range(questions):
            last = number == questions - 1
            text += system_text if last and system and not self.first else self.user
            text += MARK.format(f"question {number}") + (self.end if last else self.asked)
            text += "" if last else MARK.format(f"answer {number}") + self.answered
        return _apart(text)

    def in_go(self) -> str:
        """The template, in the language of Go."""
        opening, before, after = _literal(self.opening), _literal(self.user), _literal(self.end)
        system = _literal(self.system) + "{{ .Content }}" + _literal(self.system_end)
        if self.first:
            opening = "{{ if not .System }}" + opening + "{{ end }}" if opening else ""
            system = '{{ if eq .Role "system" }}' + system + "{{ else "
        else:
            inside = system.replace(".Content", "$.System")
            before = "{{ if and $last $.System }}" + inside + "{{ else }}" + before + "{{ end }}"
            system = "{{ "
        if self.end != self.asked:
            after = "{{ if $last }}" + after + "{{ else }}" + _literal(self.asked) + "{{ end }}"
        turns = "{{ range .Messages }}"
        if not self.first or self.end != self.asked:
            turns = "{{ range $i, $_ := .Messages }}" + LAST
        question = 'if eq .Role "user" }}' + before + "{{ .Content }}" + after
        answer = '{{ else if eq .Role "assistant" }}{{ .Content }}' + _literal(self.answered)
        return f"{opening}{turns}{system}{question}{answer}{{{{ end }}}}{{{{ end }}}}"


def _learn(tokenizer: TokenizerWrapper) -> _Template:
    """What the template writes in short conversations; raises `ValueError`."""
    end = _gaps(tokenizer, 1, False)[-1]
    opening, _, asked, _, answered, _, _ = _gaps(tokenizer, 2, False)
    start, _, system_end, _, _ = _gaps(tokenizer, 1, True)
    where = _gaps(tokenizer, 2, True).index(SYSTEM)
    first = where == 1
    if where not in (1, 5):
        raise ValueError("não põe a mensagem de sistema nem no princípio nem na última pergunta")
    # What both end with stands before every question.
    user = next(opening[i:] for i in range(len(opening) + 1) if answered.endswith(opening[i:]))
    if first and not system_end.endswith(user):
        user = ""  # the question goes on in the turn that the system text opened
    opening = opening.removesuffix(user)
    return _Template(
        first=first,
        opening=opening,
        system=start if first else start.removeprefix(opening),
        system_end=system_end.removesuffix(user) if first else system_end,
        user=user,
        end=end,
        asked=asked,
        answered=answered.removesuffix(user),
    )


def _gaps(tokenizer: TokenizerWrapper, questions: int, system: bool) -> list[str]:
    """What the template writes around the turns of a conversation that waits for an answer, and in between
    the mark of each; raises `ValueError`."""
    turns = [("system", SYSTEM)] if system else []
    for number in range(questions):
        turns.append(("user", MARK.format(f"question {number}")))
        turns.append(("assistant", MARK.format(f"answer {number}")))
    messages = [{"role": role, "content": mark} for role, mark in turns[:-1]]
    prompt, _ = write_prompt(Template(tokenizer), messages)
    gaps = _apart(prompt.removeprefix(tokenizer.bos_token or ""))
    if sorted(gaps[1::2]) != sorted(mark for _, mark in turns[:-1]):
        raise ValueError("não escreve cada mensagem uma vez")
    return gaps


def _apart(text: str) -> list[str]:
    """`text` cut before and after each mark."""
    return re.split("(" + MARK.format("[^\ue001]*") + ")", text)


def _literal(text: str) -> str:
    """`text` as Go's templates take it: as it is, but for what opens an action."""
    return text.replace("{{", '{{ "{{" }}')
