"""The conversation in the terminal: answers as they are generated, Ctrl-C ends one, /sair ends all."""

import argparse
import contextlib
import signal
from pathlib import Path

from ..answers.generate import Conversation
from ..answers.sampling import Sampling, recommended
from ..config import Config
from ..model.base import load_tuned

HELP = """/novo    começa outra conversa
/base    muda entre o modelo treinado e o modelo base, sem adaptador
/sair    termina (ou Ctrl-D); Ctrl-C interrompe uma resposta"""
WHO = {True: "modelo treinado", False: "modelo base, sem adaptador"}


def conversation(args: argparse.Namespace, config: Config, adapter: Path) -> Conversation:
    """A conversation with the model of `config` and its `adapter`, answered as the flags of `ask` and `chat`
    say; raises `UserError`, on bad flags before it loads anything."""
    sampling = Sampling.parse({name: getattr(args, name) for name in Sampling.model_fields if name in args})
    return Conversation(
        load_tuned(config, adapter),
        adapter=not args.no_adapter,
        thinking=args.thinking,
        system=args.system,
        sampling=sampling,
    )


def converse(talk: Conversation, adapter: Path) -> None:
    """Say where `adapter` is; go on with `talk` on stdin and stdout until the input ends or says /sair."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives `input` its arrows and its memory

    advice = recommended(talk.base.path)
    print(f"{HELP}\n\nadaptador em {adapter}")
    print(f"({WHO[talk.adapter]}{f'; recomendado pelo modelo: {advice}' if advice else ''})")
    while True:
        try:
            text = input("\n› ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(/sair termina)")
            continue
        if text == "/sair":
            return
        if text == "/novo":
            talk.messages.clear()
            print("(conversa nova)")
        elif text == "/base":
            talk.adapter = not talk.adapter
            print(f"({WHO[talk.adapter]})")
        elif text.startswith("/"):
            print(HELP)
        elif text:
            _answer(talk, text)


def _answer(talk: Conversation, text: str) -> None:
    """Print the answer as it comes; Ctrl-C is heard between two pieces, never inside a computation."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with contextlib.closing(talk.say(text)) as answer:
            for piece in answer:
                print(piece, end="", flush=True)
                if heard:
                    print(" (interrompida)", end="")
                    break
    finally:
        signal.signal(signal.SIGINT, before)
    print(flush=True)
