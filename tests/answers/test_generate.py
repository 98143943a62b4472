"""Answers: batched, streamed and mlx-lm's own are the same text, and they end where the model ends them; a
conversation keeps its turns, changes who answers, and stays sound when an answer is cut short. Answers are
drawn only when that is asked for, and then follow from the seed."""

from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest

from farense_qlora.answers.generate import Conversation, ask, sampler, stream
from farense_qlora.answers.sampling import GREEDY, Sampling
from farense_qlora.config import Config
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.errors import UserError
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import Base, load_base, load_tuned
from farense_qlora.model.decode import BATCH, answers
from farense_qlora.training.run import Run

# Of many lengths, and more than one batch.
QUESTIONS = [f"Quem foi o treinador em {1934 + n}" + " e depois" * (n % 6) + "?" for n in range(BATCH + 9)]
QUESTION = "Hajry: quem foi?"
SYSTEM = "Responde como um pirata."
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


def drawn(base: Base, seed: int | None = None, **others: float) -> str:
    return ask(base, QUESTIONS[0], max_tokens=24, **{"temperature": 1.5, **others, "seed": seed})


def test_the_same_seed_gives_the_same_answer_and_none_another_each_time(base: Base) -> None:
    assert drawn(base, 7) == drawn(base, 7)
    mx.random.seed(0)
    first = drawn(base)
    mx.random.seed(0)
    assert len({first, drawn(base), drawn(base, 7), drawn(base, 8)}) == 4


def test_an_answer_follows_from_its_seed_whatever_else_is_drawn_meanwhile(base: Base) -> None:
    pieces = []
    for piece in stream(base, CONVERSATIONS[0], 24, sampling=Sampling(temperature=1.5, top_p=1, seed=7)):
        pieces.append(piece)
        mx.random.seed(len(pieces))
    assert "".join(pieces) == drawn(base, 7)


def test_at_temperature_0_the_likeliest_answer_is_given_whatever_else_is_set(base: Base) -> None:
    greedy = ask(base, QUESTIONS[0], max_tokens=24)
    assert drawn(base, 7, temperature=0, top_p=0.3) == greedy == answers(base, prompts(base)[:1], 24)[0]
    assert sampler(GREEDY) is None  # mlx-lm's own way


def test_top_p_leaves_only_the_likeliest_tokens(base: Base) -> None:
    greedy = ask(base, QUESTIONS[0], max_tokens=24)
    assert drawn(base, 7, top_p=1e-6) == greedy != drawn(base, 7)


def test_a_bad_setting_is_refused(base: Base) -> None:
    with pytest.raises(UserError, match="temperature = 3: pode ser no máximo 2"):
        ask(base, QUESTION, temperature=3)


def test_a_system_text_is_a_message_before_every_turn(base: Base) -> None:
    talk = Conversation(base, max_tokens=24, system=SYSTEM)
    said = ["".join(talk.say(question)) for question in QUESTIONS[:2]]
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    first = {"role": "system", "content": SYSTEM}
    assert said[0] == ask(base, QUESTIONS[0], 24, SYSTEM) != ask(base, QUESTIONS[0], 24, " ")
    assert said[0] == "".join(stream(base, [first, talk.messages[0]], 24))
    assert said[1] == "".join(stream(base, [first, *talk.messages[:-1]], 24))


TURNS = (
    "{{% for message in messages %}}{{% if message.role == 'assistant' %}}{answer}{{{{ eos_token }}}}"
    "{{% elif message.role == 'user' %}}[INST] {{{{ message.content }}}} [/INST]"
    "{{% else %}}{{{{ raise_exception('no system') }}}}{{% endif %}}{{% endfor %}}"
)


def with_template(model: Path, folder: Path, answer: str) -> Base:
    template = folder / "template.jinja"
    template.write_text(TURNS.format(answer=answer), encoding="utf-8")
    return load_base(Config(model=str(model), bits=16, chat_template=str(template)))


def test_a_template_without_system_texts_gets_it_in_the_first_question(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = with_template(tiny_model, tmp_path, "{{ message.content }}")
    folded = f"{SYSTEM}\n\n{QUESTION}"
    assert ask(base, QUESTION, 24, SYSTEM) == ask(base, folded, 24) != ask(base, QUESTION, 24)
    talk = Conversation(base, max_tokens=24, system=SYSTEM)
    list(talk.say(QUESTION))
    second = "".join(talk.say("E depois?"))
    turns = [{"role": "user", "content": folded}, *talk.messages[1:-1]]
    assert second == "".join(stream(base, turns, 24))


def test_an_answer_that_comes_whole_is_drawn_as_well(tiny_model: Path, tmp_path: Path) -> None:
    base = with_template(tiny_model, tmp_path, "«{{ message.content }}»")
    greedy = ask(base, QUESTIONS[0], max_tokens=24)
    assert len(list(stream(base, CONVERSATIONS[0], 24))) == 1
    assert greedy == answers(base, prompts(base)[:1], 24)[0]
    assert greedy != drawn(base, 7) == drawn(base, 7) != drawn(base, 8)
