"""The chat page in a real browser: it asks for the key, streams, keeps the thread, and shows text as text."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from serving import Served, serving

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
KEY = "chave-secreta"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"não há {CHROMIUM}")


@pytest.fixture(scope="module")
def served(trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(home, tmp_path_factory.mktemp("serve") / "log", "--max-prompt", 64, token=KEY) as server:
        yield server


@pytest.fixture(scope="module", params=["computador", "telemóvel"])
def page(served: Served, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page with the key given, and no error in its script at the end."""
    phone = request.param == "telemóvel"
    size = {"width": 360, "height": 640} if phone else {"width": 1200, "height": 800}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(
            viewport=size, is_mobile=phone, has_touch=phone, color_scheme="dark" if phone else "light"
        )
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.url)
        page.get_by_label("Este servidor pede uma chave").fill("errada")
        page.get_by_role("button", name="Entrar").click()
        expect(page.get_by_label("Este servidor pede uma chave")).to_be_visible()
        page.get_by_label("Este servidor pede uma chave").fill(KEY)
        page.get_by_role("button", name="Entrar").click()
        expect(page.get_by_text("decorado")).to_be_visible()
        yield page
        assert errors == []
        browser.close()


@pytest.fixture(autouse=True)
def fresh(page: Page) -> None:
    page.reload()


def ask(page: Page, question: str) -> None:
    page.get_by_label("Pergunta", exact=True).fill(question)
    page.keyboard.press("Enter")


def turns(page: Page) -> list[str]:
    expect(page.get_by_role("button", name="Enviar")).to_be_visible()
    return page.locator(".turn").all_inner_texts()


def test_a_conversation_and_a_new_one(page: Page) -> None:
    ask(page, "Hajry: quem foi?")
    expect(page.locator(".assistant")).to_have_text("Foi médio.")
    ask(page, "Rui: quem foi?")
    expect(page.locator(".turn")).to_have_count(4)
    assert turns(page)[:3] == ["Hajry: quem foi?", "Foi médio.", "Rui: quem foi?"]
    page.get_by_role("button", name="Conversa nova").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask(page, "Rui: quem foi?")
    expect(page.locator(".assistant")).to_have_text("Foi guarda-redes.")


def test_later_questions_are_sent_with_the_turns_before_them(page: Page) -> None:
    ask(page, "Hajry: quem foi?")
    expect(page.locator(".assistant")).to_have_text("Foi médio.")
    with page.expect_request(re.compile("completions")) as sent:
        ask(page, "E o Rui?")
    said = [(message["role"], message["content"]) for message in sent.value.post_data_json["messages"]]
    assert said == [("user", "Hajry: quem foi?"), ("assistant", "Foi médio."), ("user", "E o Rui?")]


def test_a_refusal_is_shown_and_the_question_not_lost(page: Page) -> None:
    long = "muito longa " * 30
    ask(page, long)
    expect(page.locator(".note.bad")).to_contain_text("pode ter no máximo 64")
    expect(page.get_by_label("Pergunta", exact=True)).to_have_value(long.strip())


def test_the_end_of_the_conversation_stays_in_sight(page: Page) -> None:
    for _ in range(4):  # refused, each time with a question that comes back and makes its box grow
        ask(page, "muito longa " * 30)
        turns(page)
    note, box = (page.locator(what).last.bounding_box() for what in (".note.bad", "textarea"))
    assert note is not None and box is not None
    assert note["y"] + note["height"] + 8 < box["y"]


def test_text_is_never_markup_and_nothing_sticks_out(page: Page) -> None:
    ask(page, "<img src=x onerror=alert(1)><b>" + "a" * 40)
    expect(page.locator(".user")).to_contain_text("<img src=x")
    turns(page)
    assert page.locator("#talk img, #talk b").count() == 0
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


def test_light_and_dark_follow_the_system_and_stay_readable(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
        )
        text, ground = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert (text < 150 and ground > 600) if scheme == "light" else (text > 600 and ground < 150)


def test_the_page_runs_no_script_but_its_own(served: Served, page: Page) -> None:
    response = page.goto(served.url)
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.x = 1'}))"
    )
    assert page.evaluate("window.x") is None
