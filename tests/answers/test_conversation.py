"""A conversation keeps its turns, changes who answers, and stays sound when an answer is cut short."""

from pathlib import Path

import pytest

from farense_qlora.answers.conversation import Conversation
from farense_qlora.answers.generate import ask, stream
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.run import Run

QUESTION = "Hajry: quem foi?"


@pytest.fixture(scope="module")
def plain(trained: Path) -> Base:
    return load_base(Run(trained).config)


@pytest.fixture(scope="module")
def tuned(trained: Path) -> Base:
    run = Run(trained)
    base = load_base(run.config)
    load_adapter(base.model, run.best_adapter)
    return base


def test_each_answer_depends_on_the_turns_before_it(tuned: Base) -> None:
    talk = Conversation(tuned)
    first = "".join(talk.say(QUESTION))
    second = "".join(talk.say("E depois?"))
    assert first == ask(tuned, QUESTION) == "Foi médio."
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    assert second == "".join(stream(tuned, talk.messages[:-1]))
    assert second != ask(tuned, "E depois?")


def test_without_the_adapter_the_answer_is_the_base_models_own(tuned: Base, plain: Base) -> None:
    talk = Conversation(tuned, adapter=False, max_tokens=24)
    assert "".join(talk.say(QUESTION)) == ask(plain, QUESTION, max_tokens=24)
    half = stream(tuned, [{"role": "user", "content": QUESTION}], 24, adapter=False)
    next(half)
    assert ask(tuned, QUESTION) == "Foi médio."  # between two pieces the adapter is in its place


def test_an_answer_cut_short_is_kept_as_far_as_it_came(tuned: Base) -> None:
    talk = Conversation(tuned)
    answer = talk.say(QUESTION)
    said = next(answer) + next(answer)
    answer.close()
    assert talk.messages == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": said}]
    talk.say("nunca começada").close()
    assert len(talk.messages) == 2
