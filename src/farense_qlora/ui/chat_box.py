"""A conversation in the notebook: a box to ask in, answers as they are generated, the adapter on or off."""

import asyncio
import time
from contextlib import closing
from html import escape
from typing import Any

import ipywidgets as widgets

from ..answers.generate import Conversation
from ..answers.sampling import Sampling, recommended
from ..model.base import Base
from ..text import plain
from .kernel import tethered

SECONDS_BETWEEN_UPDATES = 0.1
ASK, STOP = "Enviar", "Parar"
TEMPERATURES, TOP_PS = [step / 20 for step in range(41)], [step / 20 for step in range(1, 21)]
WIDE = {"description_width": "90px"}
STYLE = """<style>
.farense-talk { color: var(--jp-content-font-color1); font-size: 14px; line-height: 1.5; max-width: 720px;
  max-height: 420px; overflow-y: auto; display: flex; flex-direction: column-reverse; }
.farense-talk p { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.farense-talk .mine { margin-top: 12px; font-weight: 600; }
.farense-talk .quiet { opacity: .75; font-size: 12px; }
</style>"""


class ChatBox(widgets.VBox):
    """A chat with the model `tuned`, which carries an adapter, as the last line of a cell; `system` and
    `sampling` (`temperature`, `top_p`, `seed`) are what its widgets say at first.

    >>> fq.chat(tuned)  # doctest: +SKIP
    """

    def __init__(self, tuned: Base, system: str = "", **sampling: Any):
        self._talk, chosen = Conversation(tuned), Sampling.parse(sampling)
        # A widget's callback may run in a thread of its own, where MLX must not be touched: it hands the
        # question over to the event loop of the kernel's main thread, where the model was loaded.
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._turns = ""
        self.shown = widgets.HTML()
        self.text = widgets.Text(placeholder="Escreva uma pergunta", layout={"flex": "1"})
        self.main = widgets.Button(description=ASK, button_style="primary", layout={"width": "90px"})
        self.fresh = widgets.Button(description="Conversa nova", layout={"width": "130px"})
        self.adapter = widgets.Checkbox(value=True, description="Com o adaptador", indent=False)
        advice = recommended(tuned.path)
        other = advice or chosen
        self.temperature = _slider("Temperatura", chosen.temperature, {*TEMPERATURES, other.temperature})
        self.top_p = _slider("Top-p", chosen.top_p, {*TOP_PS, other.top_p})
        self.seed = widgets.Text(
            value="" if chosen.seed is None else str(chosen.seed),
            placeholder="outra de cada vez",
            description="Semente",
            style=WIDE,
        )
        self.system = widgets.Text(
            value=system,
            placeholder="o que o modelo lê antes da conversa",
            description="Instruções",
            style=WIDE,
            layout={"width": "720px", "max_width": "calc(100% - 4px)"},
        )
        hand_over = self._loop.call_soon_threadsafe
        self.main.on_click(lambda _: hand_over(self._press))
        self.fresh.on_click(lambda _: hand_over(self._begin_anew))
        self.text.on_msg(lambda *message: hand_over(self._ask))  # its only message is Enter
        rows = [
            self.shown,
            widgets.HBox([self.text, self.main], layout={"max_width": "min(720px, 100%)"}),
            widgets.HBox([self.fresh, self.adapter]),
            self.system,
            widgets.HBox([self.temperature, self.top_p]),
            self.seed,
        ]
        if advice:
            label = f"recomendado pelo modelo: {advice}"
            button = widgets.Button(description=label, layout={"width": "auto"})
            button.on_click(lambda _: self._follow(advice))
            rows.append(widgets.HBox([button]))
        self._show("")
        super().__init__(rows)
        tethered(self)

    def _press(self) -> None:
        if self._task:
            self._stopped = True
        else:
            self._ask()

    def _begin_anew(self) -> None:
        self._stopped = True
        self._turns, self._talk = "", Conversation(self._talk.base)
        self._show("")

    def _follow(self, advice: Sampling) -> None:
        self.temperature.value, self.top_p.value = advice.temperature, advice.top_p

    def _ask(self) -> None:
        if (question := self.text.value.strip()) and not self._task:
            self.text.value = ""
            self._task = self._loop.create_task(self._answer(question))

    async def _answer(self, question: str) -> None:
        """Answer piece by piece; between two of them the kernel does what else there is to do."""
        self._stopped, self.main.description = False, STOP
        talk, talk.adapter = self._talk, self.adapter.value
        who = "" if talk.adapter else _paragraph("modelo base, sem adaptador", "quiet")
        self._turns += _paragraph(question, "mine") + who
        said, note, updated = "", "", 0.0
        try:
            talk.system = self.system.value
            drawn = {"temperature": self.temperature.value, "top_p": self.top_p.value}
            talk.sampling = Sampling.parse({**drawn, "seed": self.seed.value.strip() or None})
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
        self._task, self.main.description = None, ASK
        self._show("")

    def _show(self, answer: str) -> None:
        """The conversation, and under it the answer that is being made."""
        self.shown.value = f'{STYLE}<div class="farense-talk"><div>{self._turns}{answer}</div></div>'


chat = ChatBox


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def _slider(name: str, value: float, others: set[float]) -> widgets.SelectionSlider:
    """At `value`, which shows what it says with a decimal comma."""
    options = [(plain(one), one) for one in sorted({value, *others})]
    return widgets.SelectionSlider(options=options, value=value, description=name, style=WIDE)
