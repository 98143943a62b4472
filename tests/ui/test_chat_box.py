"""The chat box answers in the notebook while its callbacks stay away from MLX, and can be stopped."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import run_kernel

START = """
from pathlib import Path
import threading
import farense_qlora as fq
from farense_qlora.ui import chat_box as chat

run = fq.Run(Path({run!r}))
tuned = fq.load_tuned(run.config, run.best_adapter)
fq.chat(tuned)
"""


class Page:
    """What a browser would see and do: the state of the kernel's widgets, and messages to them."""

    def __init__(self, client: Any):
        self.client, self.ended = client, set[str]()
        self.widgets: dict[str, dict[str, Any]] = {}

    def wait(self, until: Callable[[], object]) -> None:
        """Take in what the kernel says until `until()`; fails after 60 silent seconds."""
        while not until():
            message = self.client.get_iopub_msg(timeout=60)
            content = message["content"]
            assert message["msg_type"] != "error", content
            if message["msg_type"] in ("comm_open", "comm_msg"):
                state = self.widgets.setdefault(content["comm_id"], {})
                state |= content["data"].get("state", {})
            if content.get("execution_state") == "idle":
                self.ended.add(message["parent_header"].get("msg_id"))

    def run(self, code: str) -> None:
        asked = self.client.execute(code)
        self.wait(lambda: asked in self.ended)

    def find(self, **state: object) -> str:
        (found,) = (name for name, has in self.widgets.items() if state.items() <= has.items())
        return found

    def tell(self, name: str, **data: Any) -> None:
        content = {"comm_id": name, "data": data}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", content))

    def ask(self, question: str) -> None:
        name = self.find(placeholder="Escreva uma pergunta")
        self.tell(name, method="update", state={"value": question}, buffer_paths=[])
        self.tell(name, method="custom", content={"event": "submit"})

    def click(self, description: str) -> None:
        self.tell(self.find(description=description), method="custom", content={"event": "click"})

    @property
    def said(self) -> list[str]:
        values = [str(has.get("value")) for has in self.widgets.values()]
        (html,) = (value for value in values if 'class="farense-talk"' in value)
        return [unescape(text) for text in re.findall(r"<p[^>]*>(.*?)</p>", html, re.DOTALL)]


@pytest.fixture
def page(trained: Path) -> Iterator[Page]:
    with run_kernel() as client:
        page = Page(client)
        page.run(START.format(run=str(trained)))
        yield page


def ready(page: Page) -> bool:
    return any(state.get("description") == "Enviar" for state in page.widgets.values())


def test_questions_are_answered_with_the_adapter_and_without(page: Page) -> None:
    page.ask("Hajry: quem foi?")
    page.wait(lambda: page.said == ["Hajry: quem foi?", "Foi médio."] and ready(page))
    page.tell(
        page.find(_model_name="CheckboxModel"), method="update", state={"value": False}, buffer_paths=[]
    )
    page.click("Conversa nova")
    page.wait(lambda: page.said == [])
    page.ask("Hajry: quem foi?")
    page.wait(lambda: len(page.said) == 3 and ready(page))
    assert page.said[1] == "modelo base, sem adaptador" and "médio" not in page.said[2]
    # The adapter is back in its place for whatever other cells do.
    page.run("from farense_qlora.answers.generate import ask")
    page.run("assert ask(tuned, 'Rui: quem foi?') == 'Foi guarda-redes.'")


def test_a_long_answer_can_be_stopped_and_the_next_one_given(page: Page) -> None:
    page.run("tuned.tokenizer.eos_token_ids = set()")  # an answer that would not end by itself
    page.ask("<b>Rui</b>: quem foi?")
    page.wait(lambda: len(page.said) == 2 and page.find(description="Parar"))
    page.click("Parar")
    page.wait(lambda: len(page.said) == 3 and ready(page))
    assert page.said[0] == "<b>Rui</b>: quem foi?" and page.said[2] == "resposta interrompida"
    page.run("tuned.tokenizer.eos_token_ids = {tuned.tokenizer.eos_token_id}")
    page.click("Conversa nova")
    page.ask("Rui: quem foi?")
    page.wait(lambda: page.said == ["Rui: quem foi?", "Foi guarda-redes."])


def test_no_callback_touches_the_model(page: Page) -> None:
    """The questions come in where the kernel chooses; the answers are made where the model was loaded."""
    page.run(
        "threads, stream = set(), chat.Conversation.say\n"
        "def say(self, text):\n"
        "    threads.add(threading.current_thread())\n"
        "    return stream(self, text)\n"
        "chat.Conversation.say = say"
    )
    page.ask("Rui: quem foi?")
    page.wait(lambda: page.said[1:] == ["Foi guarda-redes."])
    page.run("assert threads == {threading.main_thread()}, threads")


def test_answers_are_drawn_as_the_widgets_say(page: Page) -> None:
    said = []
    for seed in ("7", "7", "8"):
        page.tell(page.find(description="Temperatura"), method="update", state={"index": 40}, buffer_paths=[])
        page.tell(page.find(description="Semente"), method="update", state={"value": seed}, buffer_paths=[])
        page.click("Conversa nova")
        page.wait(lambda: page.said == [])
        page.ask("Hajry: quem foi?")
        page.wait(lambda: len(page.said) == 2 and ready(page))
        page.run("pass")  # the last of the answer is shown
        said.append(page.said[1])
    assert said[0] == said[1] != said[2] and "Foi médio." not in said
    page.tell(page.find(description="Semente"), method="update", state={"value": "sete"}, buffer_paths=[])
    page.ask("Hajry: quem foi?")
    page.wait(lambda: "não foi possível responder: seed = 'sete': tem de ser um número inteiro" in page.said)


ADVISED = """
import json
from dataclasses import replace
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    (Path(folder) / "generation_config.json").write_text(json.dumps({"temperature": 0.62, "top_p": 0.93}))
    box = fq.chat(replace(tuned, path=Path(folder)), system="Sê breve.", seed=5)
assert (box.temperature.value, box.top_p.value, box.seed.value, box.system.value) == (0, 1, "5", "Sê breve.")
(button,) = box.children[-1].children
assert button.description == "recomendado pelo modelo: temperatura 0,62, top-p 0,93"
button.click()
assert (box.temperature.label, box.top_p.label) == ("0,62", "0,93")
"""


def test_what_the_model_recommends_is_a_button(page: Page) -> None:
    assert not [state for state in page.widgets.values() if "recomendado" in state.get("description", "")]
    page.run(ADVISED)


def test_a_system_text_reaches_the_model(page: Page) -> None:
    page.run(
        "asked, say = [], chat.Conversation.say\n"
        "def noted(self, text):\n"
        "    asked.append(self.system)\n"
        "    return say(self, text)\n"
        "chat.Conversation.say = noted"
    )
    page.tell(
        page.find(description="Instruções"), method="update", state={"value": "Sê breve."}, buffer_paths=[]
    )
    page.ask("Rui: quem foi?")
    page.wait(lambda: len(page.said) == 2 and ready(page))
    page.run("assert asked == ['Sê breve.'], asked")
