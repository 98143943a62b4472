"""What the server's own description allows is answered as it says; what breaks that, or JSON, or HTTP, gets a
message, ten thousand times."""

import json
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from serving import Served, answers, serving

CHAT = "/v1/chat/completions"
KEY = "chave-secreta"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
BODIES = 500
# Bodies and lines that have ended or fooled servers before; chance is unlikely to hit on them.
BAD_BODIES = [
    b"",
    b"1e999",
    b"\xff\xfe",
    b"{}" * 9,
    b"[" * 2000,
    b'{"a":' * 500,
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "?"}], "seed": %d}' % 2**70,
]
BAD_STARTS = [
    b"GET",
    b"GET / HTTP/9.9",
    b"GET / JTTP/1.1",
    b"BREW /cafe HTTP/1.1",
    b"PUT / HTTP/1.1",
    b"POST /v1/nada HTTP/1.1",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
]
BAD_HEADERS = [
    *(b"Content-Length: " + length for length in (b"-1", b"0", b"1, 1", b"\xb2", b"1e3", b"+9", b"9" * 30)),
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Content-Type: text/plain",
    b"Authorization: Bearer",
    b"X: y\r\n" * 200 + b"X: y",
    b" folded",
    b"no colon",
]
BAD_BYTES = [b"", b"\0", b"\r\n", b"\n", b" ", b":", b'"', b"\\", b"{", b"\xff"]


@pytest.fixture(scope="module")
def served(trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(home, log, "--max-body", 4096, "--max-tokens", 16, token=KEY) as server:
        yield server
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def description(served: Served) -> Any:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json", wait_for_schema=5)


@pytest.fixture(scope="module")
def cases(description: Any) -> list[schemathesis.Case]:
    """Requests for an answer that the description allows, every time the same."""
    found = []

    @given(case=description[CHAT]["POST"].as_strategy())
    @settings(
        max_examples=BODIES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def collect(case: schemathesis.Case) -> None:
        found.append(case)

    collect()
    return found


def test_what_the_description_allows_is_answered_as_it_says(
    description: Any, cases: list[schemathesis.Case]
) -> None:
    # That a conversation ends with the user, or is short enough, is not a matter of the schema.
    accepted = schemathesis.checks.CHECKS.get_one("positive_data_acceptance")
    statuses = []
    for case in [*cases[::5], *(description[path]["GET"].Case() for path in ("/v1/models", "/health"))]:
        response = case.call_and_validate(headers=HEADERS, excluded_checks=[accepted], timeout=30)
        statuses.append(response.status_code)
    assert max(statuses) < 500 and statuses.count(200) > len(statuses) / 4, statuses


def test_ten_thousand_malformed_requests(
    served: Served, description: Any, cases: list[schemathesis.Case]
) -> None:
    """No two alike, from eight clients at once, on connections that are kept where HTTP allows."""
    chance = random.Random(1910)
    bodies = [json.dumps(case.body).encode() for case in cases]
    texts = [json.dumps(changed(case.body, chance)).encode() for case in cases for _ in range(14)]
    texts += [damaged(body, chance) for body in [*bodies, *BAD_BODIES] for _ in range(8)]
    chance.shuffle(texts)
    allowed = Draft202012Validator({"$ref": "#/components/schemas/ChatRequest", **description.raw_schema})
    wrong = BAD_BODIES + [text for text in dict.fromkeys(texts) if not is_allowed(text, allowed)]
    heads = [*dict.fromkeys(broken_head(text, chance) for text in wrong)][:3_000]
    wrong = wrong[:7_000]
    assert len(wrong) + len(heads) == 10_000

    def storm(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=30)
        for text in wrong[number::8]:
            connection.request("POST", CHAT, text, HEADERS)
            response = connection.getresponse()
            said = response.read()
            assert 400 <= response.status < 500 and json.loads(said)["error"]["message"], (text, said)
        connection.close()
        for request in heads[number::8]:
            with served.connect() as line:
                line.sendall(request)
                line.shutdown(socket.SHUT_WR)
                said = answers(line)
            statuses = re.findall(rb"^HTTP/1\.1 (\d+) ", said, re.MULTILINE)
            assert all(status == b"100" or status.startswith(b"4") for status in statuses), (request, said)
            assert said.count(b'{"error":{"message":"') >= max(1, len(statuses) - 1), (request, said)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storm, range(8)))
    assert httpx.get(f"{served.url}/health", trust_env=False).status_code == 200


def is_allowed(text: bytes, allowed: Draft202012Validator) -> bool:
    """Whether `text` is JSON, and such as the description has it."""
    try:
        return bool(allowed.is_valid(json.loads(text, parse_constant=Exception)))
    except (ValueError, RecursionError):
        return False


def changed(value: Any, chance: random.Random) -> Any:
    """`value` with one thing in it, at any depth, not as it was."""
    inside = [*value] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not inside or chance.random() < 0.1:
        return junk(chance)
    copy, place = value.copy(), chance.choice(inside)
    kind = chance.randrange(6)
    if kind == 0:
        del copy[place]
    elif kind == 1 and isinstance(copy, dict):
        copy[text(chance)] = copy.pop(place)
    else:
        copy[place] = changed(value[place], chance)
    return copy


def junk(chance: random.Random, depth: int = 0) -> Any:
    """Any value of JSON, or of what Python takes for it."""
    kinds = (
        lambda: chance.choice([None, True, False, float("nan"), float("-inf")]),
        lambda: chance.randrange(-(2 ** chance.randrange(1, 90)), 2 ** chance.randrange(1, 90)),
        lambda: chance.uniform(-1, 1) * 10 ** chance.randrange(-9, 300),
        lambda: text(chance),
        lambda: [junk(chance, depth + 1) for _ in range(chance.randrange(3))],
        lambda: {text(chance): junk(chance, depth + 1) for _ in range(chance.randrange(3))},
    )
    return chance.choice(kinds[: 4 if depth > 2 else 6])()


def text(chance: random.Random) -> str:
    """Of any characters, halves of one among them."""
    highest = chance.choice([0x7F, 0xFFFF, 0x10FFFF])
    return "".join(chr(chance.randrange(highest)) for _ in range(chance.choice([0, 1, 5, 200])))


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with some bytes in it put in place of others, or cut off."""
    start, end = sorted(chance.choices(range(len(data) + 1), k=2))
    if chance.random() < 0.5:
        end = min(end, start + 1)
    middle = chance.choice([chance.randbytes(chance.randrange(1, 9)), *BAD_BYTES])
    return data[:start] + middle + data[end if chance.random() < 0.8 else len(data) :]


def broken_head(body: bytes, chance: random.Random) -> bytes:
    """A request for an answer to `body`, its head damaged or with a line that does not belong there."""
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    start, *headers = [line.encode() for line in (*lines, *map(": ".join, HEADERS.items()))]
    kind = chance.randrange(4)
    if kind == 0:
        start = chance.choice(BAD_STARTS)
    elif kind == 1:
        line = chance.choice(BAD_HEADERS)
        headers = [header for header in headers if header.partition(b":")[0] != line.partition(b":")[0]]
        headers.insert(chance.randrange(len(headers) + 1), line)
    head = b"\r\n".join([start, *headers])
    return (damaged(head, chance) if kind > 1 else head) + b"\r\n\r\n" + body
