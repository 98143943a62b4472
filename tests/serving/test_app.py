"""The server answers what `ask` answers, to every client, and goes on under load and errors."""

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import httpx
import openai
import pytest
from fastapi import FastAPI
from mlx_lm.generate import BatchGenerator
from serving import Served, serving
from tiny import PEOPLE, STRANGERS

from farense_qlora.answers.generate import ask, stream
from farense_qlora.answers.sampling import Sampling
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import Base, load_base
from farense_qlora.serving.api import ChatRequest, Limits
from farense_qlora.serving.app import application
from farense_qlora.serving.engine import Engine
from farense_qlora.training.run import Run

CHAT = "/v1/chat/completions"
QUESTIONS = [f"{name}: quem foi?" for name in [*PEOPLE, *STRANGERS]]
ONE = [{"role": "user", "content": QUESTIONS[0]}]
LONGER = [
    *ONE,
    {"role": "assistant", "content": "Foi avançado."},
    {"role": "user", "content": "Rui: quem foi?"},
]


@pytest.fixture(scope="module")
def served(trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(home, log, "--max-prompt", 200, "--max-tokens", 300, "--max-requests", 16) as server:
        yield server
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0, log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def tuned(trained: Path) -> Base:
    run = Run(trained)
    base = load_base(run.config)
    load_adapter(base.model, run.best_adapter)
    return base


def asked(client: httpx.Client, messages: object = ONE, **settings: object) -> httpx.Response:
    return client.post(CHAT, json={"messages": messages, **settings})


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"] or ""


def refusal(response: httpx.Response) -> str:
    """The message of a refusal, which is in the form of the OpenAI API."""
    return response.json()["error"]["message"]


@pytest.mark.parametrize(
    "messages", [*([{"role": "user", "content": q}] for q in QUESTIONS), LONGER], ids=str
)
def test_served_answers_equal_asked_ones(
    client: httpx.Client, tuned: Base, messages: list[dict[str, str]]
) -> None:
    response = asked(client, messages)
    assert content(response) == "".join(stream(tuned, messages))
    prompt = prompt_tokens(messages, tuned.tokenizer)
    assert response.json()["usage"]["prompt_tokens"] == len(prompt)
    assert prompt.count(tuned.tokenizer.bos_token_id) == 1


def test_answers_to_many_at_once_equal_those_to_one(client: httpx.Client, tuned: Base) -> None:
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = [content(response) for response in pool.map(lambda c: asked(client, c), conversations)]
    assert answers == ["".join(stream(tuned, c)) for c in conversations]
    assert len(set(answers)) > 4


def test_the_openai_client_whole_and_streamed(served: Served) -> None:
    client = openai.OpenAI(
        base_url=f"{served.url}/v1", api_key="-", http_client=httpx.Client(trust_env=False)
    )
    (model,) = client.models.list().data
    whole = client.chat.completions.create(model=model.id, messages=ONE)
    assert whole.choices[0].message.content == "Foi avançado."
    assert whole.choices[0].finish_reason == "stop" and whole.model == model.id == "decorado"
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=model.id, messages=ONE, stream=True, stream_options=options)
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "Foi avançado." and len(list(filter(None, pieces))) > 3
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 3
    cut = client.chat.completions.create(model=model.id, messages=ONE, max_completion_tokens=2)
    assert cut.choices[0].finish_reason == "length"
    assert client.models.retrieve(model.id).id == model.id


def test_curl_with_the_answer_as_it_is_made(served: Served) -> None:
    body = json.dumps({"messages": ONE, "stream": True})
    command = ["curl", "-sN", "--noproxy", "*", served.url + CHAT, "-H", "Content-Type: application/json"]
    lines = subprocess.check_output([*command, "-d", body], text=True, timeout=30).splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(deltas) == "Foi avançado."


def test_no_name_leads_to_the_base_model(client: httpx.Client, trained: Path) -> None:
    """mlx-lm's server gives the base model to who names it by its path or by the name that it lists."""
    (model,) = client.get("/v1/models").json()["data"]
    assert content(asked(client, model=model["id"])) == "Foi avançado."
    for name in (Run(trained).config.model, str(trained), "default_model", "gpt-4o", ""):
        response = asked(client, model=name)
        assert response.status_code == 404 and "há «decorado»" in refusal(response)
    assert asked(client, adapters=str(trained)).status_code == 400


def test_content_may_come_in_parts_and_settings_may_be_null(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "Hassan: "}, {"type": "text", "text": "quem foi?"}]
    nulls = {"temperature": None, "max_tokens": None, "stop": None, "stream": None}
    assert (
        content(asked(client, [{"role": "user", "content": parts}], **nulls, n=1, user="eu"))
        == "Foi avançado."
    )


@pytest.mark.parametrize(
    "change",
    [
        {
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "functions": [],
            "function_call": "none",
        },
        {
            "tool_choice": "none",
            "response_format": {"type": "text"},
            "modalities": ["text"],
            "logit_bias": {},
        },
        {"store": True, "metadata": {"chat_id": "1"}, "service_tier": "auto", "safety_identifier": "x"},
        {"logprobs": False, "top_logprobs": 0, "n": 1, "seed": -1, "prompt_cache_key": "x"},
        {"stream_options": {"include_usage": None, "include_obfuscation": False}},
        dict.fromkeys(
            (
                *("tools", "tool_choice", "functions", "function_call", "response_format", "logit_bias"),
                *("logprobs", "top_logprobs", "store", "metadata", "service_tier", "parallel_tool_calls"),
                *("user", "seed", "stream_options", "modalities", "audio", "prediction", "n", "stop"),
                *("reasoning_effort", "verbosity", "web_search_options", "model", "top_p"),
                *("presence_penalty", "frequency_penalty", "safety_identifier", "prompt_cache_key"),
            )
        ),
    ],
    ids=lambda change: ",".join(change)[:40],
)
def test_what_changes_nothing_is_taken(client: httpx.Client, change: dict[str, object]) -> None:
    plain = {**ONE[0], "name": "rui", "content": [{"type": "text", "text": ONE[0]["content"]}]}
    assert content(asked(client, [plain], **change)) == "Foi avançado."


def test_an_answer_comes_back_with_all_that_it_had(client: httpx.Client) -> None:
    plain = content(asked(client, LONGER))
    nothing = {"refusal": None, "audio": None, "function_call": None, "tool_calls": [], "annotations": []}
    again = [LONGER[0], {**LONGER[1], **nothing, "reasoning": "Hm.", "name": None}, LONGER[2]]
    assert content(asked(client, again)) == plain
    silent = [LONGER[0], {"role": "assistant", "content": None}, LONGER[2]]  # as an empty answer is sent
    assert asked(client, silent).status_code == 200


def test_more_tokens_than_the_limit_are_the_limit(client: httpx.Client) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        response = asked(client, temperature=2, seed=3, **{name: 4096})
        assert 1 <= response.json()["usage"]["completion_tokens"] <= 300
        assert content(asked(client, **{name: 10**30})) == "Foi avançado."
    limits = Limits.parse({"max_tokens": 5})
    for body in ({}, {"max_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": 7}):
        request = ChatRequest.model_validate({"messages": ONE, **body})
        assert request.answer_tokens(256, limits) == 5


def test_a_developer_is_who_the_template_calls_system() -> None:
    messages = [{"role": "developer", "content": "Sê breve."}, *ONE]
    request = ChatRequest.model_validate({"messages": messages})
    assert request.conversation == [{"role": "system", "content": "Sê breve."}, *ONE]


def test_a_drawn_answer_is_the_one_that_ask_draws(client: httpx.Client, tuned: Base) -> None:
    drawn = {"temperature": 2, "top_p": 0.999, "seed": 7}
    for body in (drawn, {**drawn, "seed": 8}):
        said = content(asked(client, max_tokens=16, **body))
        assert said == content(asked(client, max_tokens=16, **body, top_k=1000, min_p=0))
        assert said == ask(tuned, QUESTIONS[0], 16, **body) != "Foi avançado."
    assert content(asked(client, **drawn, top_k=1)) == "Foi avançado."
    assert content(asked(client, **drawn, min_p=1)) == "Foi avançado."


def test_sampling_follows_its_seed_and_stop_words_end_an_answer(client: httpx.Client) -> None:
    hot = {"temperature": 2, "max_tokens": 30}
    first, again, other = (content(asked(client, **hot, seed=seed)) for seed in (7, 7, 8))
    assert first == again != other
    request = ChatRequest.model_validate({"messages": ONE, "top_p": 0, "seed": -1})
    assert request.sampling == Sampling(temperature=0, top_p=1, seed=2**53 - 1)  # as clients may send it
    assert content(asked(client, stop="ç")) == "Foi avan"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"messages": []}, "messages: não pode ficar vazio"),
        ({"messages": None}, "messages: tem de ser uma lista"),
        ({"messages": [{"role": "bruxo", "content": "x"}]}, "messages.0.role: os valores possíveis são"),
        ({"messages": LONGER[:2]}, "a última mensagem tem de ser do utilizador"),
        ({"max_completion_tokens": 0}, "max_completion_tokens: tem de ser pelo menos 1"),
        ({"max_tokens": "muitos"}, "max_tokens: tem de ser um número inteiro"),
        ({"temperature": -1}, "temperature: tem de ser pelo menos 0"),
        ({"stop": ["a"] * 5}, "stop: no máximo 4"),
        ({"stop": ""}, "stop: no máximo 4"),
        ({"n": 2}, "n: pode ser no máximo 1"),
        ({"n": True}, "n: tem de ser um número inteiro"),
        ({"logit_bias": {"1": 5}}, "logit_bias: este campo não é suportado"),
        ({"tools": [{"type": "function"}]}, "tools: este campo não é suportado"),
        ({"tool_choice": "required"}, "tool_choice: este campo não é suportado"),
        ({"functions": [{"name": "x"}]}, "functions: este campo não é suportado"),
        ({"logprobs": True}, "logprobs: este campo não é suportado"),
        ({"top_logprobs": 2}, "top_logprobs: este campo não é suportado"),
        ({"response_format": {"type": "json_object"}}, "response_format.type: este campo não é suportado"),
        ({"modalities": ["text", "audio"]}, "este campo não é suportado"),
        ({"reasoning_effort": "high"}, "reasoning_effort: este campo não é suportado"),
        ({"inventado": None}, "inventado: este campo não é suportado"),
        ({"messages": [{**ONE[0], "tool_call_id": "1"}]}, "messages.0.tool_call_id: este campo não é"),
        (
            {"messages": [*LONGER[:1], {**LONGER[1], "refusal": "Não."}, *LONGER[2:]]},
            "messages.1.refusal: este",
        ),
        (
            {"messages": [*LONGER[:1], {**LONGER[1], "tool_calls": [{}]}, *LONGER[2:]]},
            "messages.1.tool_calls: ",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: tem de ser texto"),
        ({"messages": [{"role": "tool", "content": "x"}, *ONE]}, "messages.0.role: os valores possíveis são"),
        ({"messages": [{"role": "user", "content": "muito longa " * 200}]}, "pode ter no máximo 200"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_request_says_what_is_wrong(client: httpx.Client, change: dict[str, object], said: str) -> None:
    response = client.post(CHAT, json={"messages": ONE, **change})
    assert response.status_code == 400 and said in refusal(response)


def test_what_was_read_before_is_not_read_again_but_for_its_end(client: httpx.Client) -> None:
    """A batch, given a prompt of which nothing is left to read, fails."""
    question = [{"role": "user", "content": "Hassan: quem foi mesmo?"}]
    first, again = (asked(client, question).json() for _ in range(2))
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == first["usage"]["prompt_tokens"] - 2
    assert again["choices"] == first["choices"]


def test_the_same_short_question_again_and_again(client: httpx.Client) -> None:
    for length in (1, 1, 2, 1):
        assert asked(client, max_tokens=length).json()["usage"]["completion_tokens"] == length


def test_sixty_four_clients_are_answered_or_refused(served: Served, client: httpx.Client) -> None:
    def visit(number: int) -> set[tuple[int, str]]:
        messages = [{"role": "user", "content": QUESTIONS[number % 8]}]
        seen = set()
        with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as own:
            for _ in range(4):
                response = asked(own, messages, stream=False)
                said = content(response) if response.status_code == 200 else refusal(response)
                seen.add((response.status_code, said))
        return seen

    with ThreadPoolExecutor(64) as pool:
        seen = set().union(*pool.map(visit, range(64)))
    answered = {said for status, said in seen if status == 200}
    assert answered == {f"Foi {what}." for what in PEOPLE.values()}
    assert {status for status, _ in seen} == {200, 429}
    assert client.get("/health").json() == {"status": "ok", "model": "decorado"}


def test_clients_that_leave_in_the_middle_do_no_harm(served: Served, client: httpx.Client) -> None:
    body = json.dumps({"messages": ONE, "stream": True, "temperature": 2, "max_tokens": 300}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for wait in (0, 0, 0.05, 0.1, 0.2):
        with served.connect() as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(wait)
    assert content(asked(client)) == "Foi avançado."
    places = {asked(client).status_code for _ in range(20)}
    assert places == {200}  # the places of those that left are free again


def test_the_log_says_who_and_what_but_nothing_of_the_contents(served: Served, client: httpx.Client) -> None:
    secret = "Segredo"
    asked(client, [{"role": "user", "content": secret}], user=secret)
    client.post(f"{CHAT}?{secret}", json={"messages": ONE, secret: 1})
    client.get(f"/{secret}")
    log = served.log.read_text()
    assert re.search(rf"\d\d:\d\d:\d\d 127\.0\.0\.1 POST {CHAT} 200 \d+,\d\d s\n", log)
    assert secret not in log and QUESTIONS[0] not in log and "avançado" not in log


def test_a_stopped_server_finishes_its_answers(trained: Path, home: Path, tmp_path: Path) -> None:
    """More than are decoded together, so that some have not begun when the server is told to stop."""
    body = {"messages": ONE, "stream": True, "temperature": 2, "max_tokens": 600}
    begun = Barrier(13)

    def ask() -> str:
        with httpx.stream("POST", server.url + CHAT, json=body, timeout=60, trust_env=False) as response:
            lines = response.iter_lines()
            next(lines)
            begun.wait(30)
            return [line for line in lines if line][-1]

    with serving(home, tmp_path / "log") as server, ThreadPoolExecutor(12) as pool:
        idle = server.connect()
        answers = [pool.submit(ask) for _ in range(12)]
        begun.wait(30)
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result() for answer in answers] == ["data: [DONE]"] * 12
        assert server.process.wait(20) == 0
        assert idle.recv(10) == b""
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_generation_that_fails_is_told_and_the_next_answered(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failures = Run(trained), [MemoryError()] * 2
    decode = BatchGenerator.next

    def fail(batch: BatchGenerator) -> object:
        if failures:
            raise failures.pop()
        return decode(batch)

    async def conversation(app: FastAPI) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                await client.post(CHAT, json={"messages": ONE, "stream": stream})
                for stream in (False, True, False)
            ]

    monkeypatch.setattr(BatchGenerator, "next", fail)
    limits = Limits.parse({})
    with closing(Engine(run.config, {"decorado": run.best_adapter}, limits)) as engine:
        engine.wait_until_loaded()
        whole, streamed, again = asyncio.run(conversation(application(engine, ["decorado"], limits)))
    assert whole.status_code == 503 and refusal(whole) == "a geração falhou; tente outra vez"
    assert streamed.status_code == 200 and "a geração falhou" in streamed.text
    assert "[DONE]" not in streamed.text
    assert content(again) == "Foi avançado."


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_nobody_waits_for_is_not_made(
    trained: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    run, limits, removed = Run(trained), Limits.parse({"max_tokens": 100_000}), []
    remove = BatchGenerator.remove

    def note(batch: BatchGenerator, numbers: list[int]) -> object:
        removed.extend(numbers)
        return remove(batch, numbers)

    monkeypatch.setattr(BatchGenerator, "remove", note)
    body = {"messages": ONE, "stream": stream, "temperature": 2, "max_tokens": 100_000, "seed": 1}
    kind = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": kind, "query_string": b""}
    said = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> dict[str, object]:
        return said.pop() if said else {"type": "http.disconnect"}

    async def send(message: object) -> None:
        pass

    with closing(Engine(run.config, {"decorado": run.best_adapter}, limits)) as engine:
        engine.wait_until_loaded()
        asyncio.run(application(engine, ["decorado"], limits)(scope, receive, send))
        assert engine.running == 0
        begun = time.monotonic()
        while not removed and time.monotonic() - begun < 10:
            time.sleep(0.01)
    assert removed
