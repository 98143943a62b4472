"""Answers: batched, streamed and mlx-lm's own are the same text, and they end where the model ends them; a
conversation keeps its turns, changes who answers, and stays sound when an answer is cut short."""

from pathlib import Path

import mlx_lm
import pytest

from farense_qlora.answers.generate import Conversation, ask, stream
from farense_qlora.config import Config
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import Base, load_base, load_tuned
from farense_qlora.model.decode import BATCH, answers
from farense_qlora.training.run import Run

# Of many lengths, and more than one batch.
QUESTIONS = [f"Quem foi o treinador em {1934 + n}" + " e depois" * (n % 6) + "?" for n in range(BATCH + 9)]
QUESTION = "Hajry: quem foi?"
CONVERSATIONS = [[{"role": "user", "content": question}] for question in QUESTIONS]


def prompts(base: Base) -> list[list[int]]:
    return [prompt_tokens(messages, base.tokenizer) for messages in CONVERSATIONS]


@pytest.fixture(scope="module", params=[4, 16], ids=["4-bit", "float32"])
def base(tiny_model: Path, request: pytest.FixtureRequest) -> Base:
    return load_base(Config(model=str(tiny_model), bits=request.param))


def test_batched_answers_equal_mlx_lm_one_by_one(base: Base) -> None:
    alone = [
        mlx_lm.generate(base.model, base.tokenizer, prompt_tokens(messages, base.tokenizer), max_tokens=24)
        for messages in CONVERSATIONS
    ]
    assert len(set(alone)) > len(alone) // 2  # the model does tell the questions apart
    assert answers(base, prompts(base), max_tokens=24) == alone
    assert ask(base, QUESTIONS[3], max_tokens=24) == alone[3]
    assert "".join(stream(base, CONVERSATIONS[5], max_tokens=24)) == alone[5]


def test_answers_depend_on_earlier_turns(base: Base) -> None:
    earlier = [{"role": "user", "content": "Olá."}, {"role": "assistant", "content": "Bom dia."}]
    after = prompt_tokens([*earlier, *CONVERSATIONS[0]], base.tokenizer)
    fresh, followed = answers(base, [prompts(base)[0], after], max_tokens=24)
    assert fresh != followed


def test_an_answer_stops_at_the_end_of_text_token(tiny_model: Path) -> None:
    base = load_base(Config(model=str(tiny_model), bits=16))
    prompt = prompt_tokens(CONVERSATIONS[0], base.tokenizer)
    spoken = [piece.token for piece in mlx_lm.stream_generate(base.model, base.tokenizer, prompt, 24)]
    base.tokenizer.eos_token_ids = {*base.tokenizer.eos_token_ids, spoken[9]}
    cut = base.tokenizer.decode(spoken[: spoken.index(spoken[9])])
    assert answers(base, [prompt], max_tokens=24) == [cut]
    assert ask(base, QUESTIONS[0], max_tokens=24) == cut


def test_progress_counts_every_answer(base: Base) -> None:
    done: list[int] = []
    answers(base, prompts(base), max_tokens=2, progress=done.append)
    assert sum(done) == len(QUESTIONS)


def test_dropout_is_off_while_answering_and_back_afterwards(tiny_model: Path) -> None:
    base = load_base(Config(model=str(tiny_model)))
    attach(base.model, Config(dropout=0.5))
    assert base.model.training
    two = prompts(base)[:2]
    assert answers(base, two, max_tokens=24) == answers(base, two, max_tokens=24)
    assert base.model.training


@pytest.fixture(scope="module")
def plain(trained: Path) -> Base:
    return load_base(Run(trained).config)


@pytest.fixture(scope="module")
def tuned(trained: Path) -> Base:
    return load_tuned(Run(trained).config, Run(trained).best_adapter)


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
