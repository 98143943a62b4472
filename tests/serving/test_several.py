"""Several adapters on one base are served together, and each answers as if it were alone."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import openai
import pytest
from conftest import command_in
from serving import Served, serving
from tiny import PEOPLE, STRANGERS

from farense_qlora.answers.generate import stream
from farense_qlora.model.base import load_tuned
from farense_qlora.training.run import Run

NAMES = ("decorado", "trocado")
CONVERSATIONS = [[{"role": "user", "content": f"{name}: quem foi?"}] for name in [*PEOPLE, *STRANGERS]]


@pytest.fixture(scope="module")
def served(rivals: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(rivals, tmp_path_factory.mktemp("serve") / "log", "--run", "trocado") as server:
        yield server
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    own = httpx.Client(trust_env=False)
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="-", http_client=own, max_retries=0)


def answer(client: openai.OpenAI, messages: object, **settings: object) -> str:
    said = client.chat.completions.create(messages=messages, **{"model": None, **settings})
    assert said.model == (settings.get("model") or NAMES[0])
    return said.choices[0].message.content or ""


@pytest.fixture(scope="module")
def alone(rivals: Path) -> dict[str, list[str]]:
    """What each adapter answers to each of the conversations, with nobody beside it."""
    said = {}
    for name in NAMES:
        run = Run(rivals / "checkpoints_qlora" / name)
        tuned = load_tuned(run.config, run.best_adapter)
        said[name] = ["".join(stream(tuned, messages)) for messages in CONVERSATIONS]
    return said


def test_each_answers_as_it_does_alone_while_both_are_asked(
    client: openai.OpenAI, alone: dict[str, list[str]]
) -> None:
    """Twice, so that what was read of a question by one would be met by the other."""
    asked = [(name, number) for _ in range(2) for number in range(len(CONVERSATIONS)) for name in NAMES]
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda one: answer(client, CONVERSATIONS[one[1]], model=one[0]), asked))
    assert said == [alone[name][number] for name, number in asked]
    assert sum(map(str.__ne__, *alone.values())) >= 8


def test_the_first_answers_who_names_none(client: openai.OpenAI, alone: dict[str, list[str]]) -> None:
    for messages, last, first in zip(CONVERSATIONS, *reversed(alone.values()), strict=True):
        assert answer(client, messages, model="trocado") == last
        assert answer(client, messages) == first


def test_all_are_listed_and_no_other_is_there(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(NAMES)
    assert [client.models.retrieve(name).id for name in NAMES] == list(NAMES)
    for name in ("gpt-4o", "", "mini"):
        with pytest.raises(openai.NotFoundError, match="há «decorado», «trocado»") as refused:
            answer(client, CONVERSATIONS[0], model=name)
        assert refused.value.code == "model_not_found" and refused.value.type == "invalid_request_error"
        assert refused.value.body.keys() == {"message", "type", "param", "code"}


def test_nobody_waits_for_the_end_of_the_answers_of_another_adapter(client: openai.OpenAI) -> None:
    """More of those are asked for than are decoded together."""
    begun, running = Barrier(11), set(range(10))

    def go_on(number: int) -> None:
        settings = {"temperature": 2, "max_tokens": 1000, "seed": number, "stream": True}
        pieces = client.chat.completions.create(model="decorado", messages=CONVERSATIONS[0], **settings)
        begun.wait(30)
        for _ in pieces:
            pass
        running.remove(number)

    with ThreadPoolExecutor(10) as pool:
        ends = [pool.submit(go_on, number) for number in range(10)]
        begun.wait(30)
        assert answer(client, CONVERSATIONS[0], model="trocado") == "Foi treinador."
        assert len(running) > 5
        [end.result() for end in ends]


def test_what_cannot_be_served_together_is_said(rivals: Path, tmp_path: Path) -> None:
    runs = tmp_path / "checkpoints_qlora"
    shutil.copytree(rivals / "checkpoints_qlora", runs, symlinks=True)
    config = runs / "trocado" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bits": 8}))
    for asked, said in (
        (("decorado", "trocado"), "«trocado» e «decorado» não têm a mesma base: bits é 8 num e 4 no outro"),
        (("decorado", "decorado"), "há dois adaptadores chamados «decorado»: tire um"),
        (("decorado", "nada"), "não há nenhum treino chamado «nada»"),
    ):
        done = command_in(tmp_path)("serve", "--port", 0, "--run", *asked)
        assert done.returncode == 2 and said in done.stderr
