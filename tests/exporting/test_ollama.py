"""What Ollama makes of a conversation is what the model was taught to answer, in every family."""

from pathlib import Path

import pytest
from chats import FAMILIES, tokenizer_of
from gotemplate import ollama
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer

from farense_qlora.data.template import Template
from farense_qlora.data.turns import write_prompt
from farense_qlora.errors import UserError
from farense_qlora.exporting.ollama import go_template

SYSTEM = {"role": "system", "content": "Responde em verso.\nE em {{ português }}."}
TURNS = [
    {"role": "user", "content": "Quem foi Paco?"},
    {"role": "assistant", "content": "Foi treinador:\n- do Farense.\n"},
    {"role": "user", "content": 'E depois?\n\nDiz "tudo".'},
    {"role": "assistant", "content": "Saiu."},
    {"role": "user", "content": "Porquê?"},
    {"role": "assistant", "content": "Não sei."},
    {"role": "user", "content": "Está bem."},
]


@pytest.fixture
def tiny_tokenizer(tiny_model: Path) -> TokenizerWrapper:
    return load_tokenizer(tiny_model)


@pytest.mark.parametrize("name", FAMILIES)
def test_ollama_says_what_the_model_was_taught(name: str) -> None:
    tokenizer = tokenizer_of(name)
    template = go_template(tokenizer)
    for start in ([], [SYSTEM]):
        for length in (1, 3, 5, 7):
            messages = [{**turn, "content": turn["content"].strip()} for turn in (*start, *TURNS[:length])]
            prompt, _ = write_prompt(Template(tokenizer), messages)
            assert ollama(template, messages) == prompt.removeprefix(tokenizer.bos_token or "")


def test_several_system_texts_are_one(tiny_tokenizer: TokenizerWrapper) -> None:
    tiny_tokenizer.chat_template = CHATML
    twice = [SYSTEM, {"role": "system", "content": "Sê breve."}, *TURNS[:1]]
    said = ollama(go_template(tiny_tokenizer), twice)
    assert said.startswith(f"system: {SYSTEM['content']}\n\nSê breve.\nuser: ")


CHATML = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}assistant: "
NUMBERED = "{% for m in messages %}{{ loop.index ~ '. ' + m['content'] + '\\n' }}{% endfor %}"
FIRST_TWICE = "{% for m in messages %}{{ messages[0]['content'] + m['content'] }}{% endfor %}"
SYSTEM_LAST = (
    "{% for m in messages if m['role'] != 'system' %}[{{ m['content'] }}]{% endfor %}"
    "{% for m in messages if m['role'] == 'system' %}({{ m['content'] }}){% endfor %}>"
)
ONE_TURN = (
    "{% if messages|length > 2 %}{{ raise_exception('uma pergunta só') }}{% endif %}"
    "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
)
QUOTED = "{% for m in messages %}{{ '\"\"\"' + m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    "template, why",
    [
        (NUMBERED, "não escreve cada mensagem da mesma maneira"),
        (FIRST_TWICE, "não escreve cada mensagem uma vez"),
        (SYSTEM_LAST, "nem no princípio nem na última pergunta"),
        (ONE_TURN, "uma pergunta só"),
        (QUOTED, "que um Modelfile não pode ter"),
    ],
)
def test_what_cannot_be_said_is_refused_with_the_reason(
    tiny_tokenizer: TokenizerWrapper, template: str, why: str
) -> None:
    tiny_tokenizer.chat_template = template
    with pytest.raises(UserError, match=why):
        go_template(tiny_tokenizer)


def test_braces_of_the_template_stay_text(tiny_tokenizer: TokenizerWrapper) -> None:
    tiny_tokenizer.chat_template = CHATML.replace("': '", "' {' + '{ x }' + '}: '")
    assert ollama(go_template(tiny_tokenizer), TURNS[:1]) == "user {{ x }}: Quem foi Paco?\nassistant: "


def test_a_base_without_a_template_has_one_of_plain_lines(tiny_tokenizer: TokenizerWrapper) -> None:
    tiny_tokenizer.chat_template = None
    assert ollama(go_template(tiny_tokenizer), TURNS[:3]).startswith("Quem foi Paco?\nFoi treinador:")
