"""A conversation in the notebook: a box to ask in, answers as they are generated, the adapter on or off."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from html import escape

import ipywidgets as widgets
from IPython.display import display

from ..answers.generate import Conversation
from ..model.base import Base

SECONDS_BETWEEN_UPDATES = 0.1
ASK, STOP = "Enviar", "Parar"
STYLE = """<style>
.farense-talk { color: var(--jp-content-font-color1); font-size: 14px; line-height: 1.5; max-width: 720px;
  max-height: 420px; overflow-y: auto; display: flex; flex-direction: column-reverse; }
.farense-talk p { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.farense-talk .mine { margin-top: 12px; font-weight: 600; }
.farense-talk .quiet { opacity: .6; font-size: 12px; }
</style>"""


def chat(tuned: Base) -> "ChatBox":
    """A chat with the model `tuned`, which carries an adapter, as the last line of a cell.

    >>> fq.chat(tuned)  # doctest: +SKIP
    """
    return ChatBox(tuned)


class ChatBox:
    """The widgets, and the task that answers.

    A widget's callback may run in a thread of its own, where MLX must not be touched: it only hands the
    question over to the event loop of the kernel's main thread, where the model was loaded.
    """

    def __init__(self, tuned: Base):
        self._talk = Conversation(tuned)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._turns = ""
        self.shown = widgets.HTML()
        self.text = widgets.Text(placeholder="Escreva uma pergunta", layout={"flex": "1"})
        self.send = widgets.Button(description=ASK, button_style="primary", layout={"width": "90px"})
        self.fresh = widgets.Button(description="Conversa nova", layout={"width": "130px"})
        self.adapter = widgets.Checkbox(value=True, description="Com o adaptador", indent=False)
        self.send.on_click(lambda _: self._hand_over(self._press))
        self.fresh.on_click(lambda _: self._hand_over(self._begin_anew))
        self.text.on_msg(lambda *message: self._hand_over(self._ask))  # its only message is Enter
        row = widgets.HBox([self.text, self.send], layout={"max_width": "720px"})
        self.box = widgets.VBox([self.shown, row, widgets.HBox([self.fresh, self.adapter])])
        self._show("")

    def _ipython_display_(self) -> None:
        display(self.box)

    def _hand_over(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    def _press(self) -> None:
        if self._task:
            self._stopped = True
        else:
            self._ask()

    def _begin_anew(self) -> None:
        self._stopped = True
        self._turns, self._talk = "", Conversation(self._talk.base)
        self._show("")

    def _ask(self) -> None:
        if (question := self.text.value.strip()) and not self._task:
            self.text.value = ""
            self._task = self._loop.create_task(self._answer(question))

    async def _answer(self, question: str) -> None:
        """Answer piece by piece; between two of them the kernel does what else there is to do."""
        self._stopped, self.send.description = False, STOP
        talk, talk.adapter = self._talk, self.adapter.value
        who = "" if talk.adapter else _paragraph("modelo base, sem adaptador", "quiet")
        self._turns += _paragraph(question, "mine") + who
        said, note, updated = "", "", 0.0
        try:
            with closing(talk.say(question)) as pieces:
                for piece in pieces:
                    said += piece
                    if time.monotonic() - updated > SECONDS_BETWEEN_UPDATES:
                        self._show(_paragraph(said))
                        updated = time.monotonic()
                    await asyncio.sleep(0)
                    if self._stopped:
                        note = "resposta interrompida"
                        break
        except Exception as error:
            note = f"não foi possível responder: {error}"
        if talk is self._talk:
            self._turns += _paragraph(said) + (_paragraph(note, "quiet") if note else "")
        self._task, self.send.description = None, ASK
        self._show("")

    def _show(self, answer: str) -> None:
        """The conversation, and under it the answer that is being made."""
        self.shown.value = f'{STYLE}<div class="farense-talk"><div>{self._turns}{answer}</div></div>'


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'
