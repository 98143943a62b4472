"""`ask` writes as it generates, `chat` talks in a real terminal: history, commands, Ctrl-C and Ctrl-D."""

import codecs
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FARENSE, Command

from farense_qlora.answers.sampling import Sampling
from farense_qlora.cli.parser import build_parser
from farense_qlora.cli.talk import conversation
from farense_qlora.cli.trained import adapter_of
from farense_qlora.training import run as run_module

QUESTION, ANSWER = "Hajry: quem foi?", "Foi médio."


class Terminal:
    """`farense-qlora chat` at the other end of a pseudo-terminal."""

    def __init__(self, home: Path, *arguments: str):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*FARENSE, "chat", "--run", "decorado", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
            env={**os.environ, "FARENSE_HOME": str(home), "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
        )
        os.close(slave)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character

    def wait(self, text: str) -> str:
        """What was written up to and with `text`, since the last call."""
        deadline = time.monotonic() + 60
        while text not in self.seen and time.monotonic() < deadline:
            self._read()
        before, found, self.seen = self.seen.partition(text)
        assert found, before
        return before + found

    def insist(self, keys: str, text: str) -> None:
        """Press `keys` again and again until `text` is written.

        readline writes its prompt a moment before it listens: a Ctrl-C pressed then waits for the next key,
        and the terminal drops what was typed before it.
        """
        deadline = time.monotonic() + 60
        while text not in self.seen and time.monotonic() < deadline:
            self.type(keys)
            self._read(5)
        self.wait(text)

    def anything(self) -> None:
        """Wait until something was written since the last call of `wait`."""
        deadline = time.monotonic() + 60
        while not self.seen and time.monotonic() < deadline:
            self._read()

    def _read(self, seconds: float = 0.2) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += self._decoder.decode(os.read(self.master, 4096)).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@pytest.fixture
def terminal(home: Path, trained: Path) -> Iterator[Terminal]:
    terminal = Terminal(home)
    terminal.wait("\n› ")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.master)


def test_a_conversation_in_the_terminal(terminal: Terminal) -> None:
    terminal.type(f"{QUESTION}\n")
    assert f"{ANSWER}\n" in terminal.wait("\n› ")
    terminal.type("E depois?\n")
    followed = terminal.wait("\n› ")
    terminal.type("/novo\n")
    assert "(conversa nova)" in terminal.wait("\n› ")
    terminal.type("E depois?\n")
    assert terminal.wait("\n› ") != followed
    terminal.type("/ajuda\n")
    assert "/base" in terminal.wait("\n› ")
    terminal.type("/sair\n")
    assert terminal.process.wait(10) == 0


def test_the_base_model_for_comparison_and_ctrl_d(terminal: Terminal) -> None:
    terminal.type("/base\n")
    assert "(modelo base, sem adaptador)" in terminal.wait("\n› ")
    terminal.type(f"{QUESTION}\n")
    assert ANSWER not in terminal.wait("\n› ")
    terminal.type("/base\n")
    assert "(modelo treinado)" in terminal.wait("\n› ")
    terminal.type("/novo\n")
    terminal.wait("\n› ")
    terminal.type(f"{QUESTION}\n")
    assert ANSWER in terminal.wait("\n› ")
    terminal.type("\x04")
    assert terminal.process.wait(10) == 0


def test_ctrl_c_ends_an_answer_and_not_the_conversation(terminal: Terminal) -> None:
    terminal.type("/base\n")
    terminal.wait("\n› ")
    terminal.type(f"{QUESTION}\n")
    terminal.wait(f"{QUESTION}\n")
    terminal.anything()  # the answer has begun
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert "(interrompida)" in terminal.wait("\n› ")
    terminal.insist("\x03", "(/sair termina)")
    terminal.insist("/novo\n", "(conversa nova)")
    terminal.type("/base\n")
    terminal.wait("(modelo treinado)\n\n› ")
    terminal.type(f"{QUESTION}\n")
    assert ANSWER in terminal.wait("\n› ")
    assert terminal.process.poll() is None


def test_chat_reads_what_a_pipe_gives(home: Path, trained: Path) -> None:
    done = subprocess.run(
        [*FARENSE, "chat", "--run", "decorado"],
        input=f"{QUESTION}\n",
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "FARENSE_HOME": str(home)},
    )
    assert done.returncode == 0 and ANSWER in done.stdout and done.stderr == ""


def test_ask_writes_each_piece_as_it_comes(home: Path, trained: Path) -> None:
    command = [*FARENSE, "ask", QUESTION, "--run", "decorado"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "FARENSE_HOME": str(home)}
    ) as process:
        assert process.stdout is not None
        pieces = []
        while piece := os.read(process.stdout.fileno(), 4096):
            pieces.append(piece)
    assert b"".join(pieces).decode() == f"{ANSWER}\n" and len(pieces) > 2


def test_ask_without_the_adapter(farense: Command, trained: Path) -> None:
    said = json.loads(farense("ask", QUESTION, "--run", "decorado", "--no-adapter", "--json").stdout)
    assert said["status"] == "ok" and said["response"] != ANSWER
    assert re.search(r"\S", said["response"])


def test_ask_and_chat_answer_as_their_flags_say(
    farense: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", trained.parent)
    flags = ["--temperature", "1,5", "--top-p", "0,9", "--seed", "3", "--system", "Sê breve."]
    said = farense("ask", QUESTION, "--run", "decorado", *flags)
    for command in (["ask", QUESTION], ["chat"]):
        args = build_parser().parse_args([*command, *flags, "--run", trained.name])
        talk = conversation(args, *adapter_of(args.run, args.adapter, args.model))
        assert talk.sampling == Sampling(temperature=1.5, top_p=0.9, seed=3)
        assert (talk.system, talk.adapter) == ("Sê breve.", True)
        assert "".join(talk.say(QUESTION)) + "\n" == said.stdout != f"{ANSWER}\n"


def test_a_setting_out_of_range_is_refused_before_the_model_is_loaded(
    farense: Command, trained: Path
) -> None:
    done = farense("ask", QUESTION, "--run", "decorado", "--top-p", "1,5", "--model", "/não/há", "--json")
    assert done.returncode == 2 and done.stderr == "erro: top_p = '1.5': pode ser no máximo 1\n"
    assert json.loads(done.stdout)["error"] == "top_p = '1.5': pode ser no máximo 1"


def test_chat_says_once_what_the_model_recommends(
    home: Path, trained: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "aconselhado")
    advice = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    (model / "generation_config.json").write_text(json.dumps(advice), encoding="utf-8")
    done = subprocess.run(
        [*FARENSE, "chat", "--run", "decorado", "--model", str(model)],
        input=f"{QUESTION}\n/novo\n{QUESTION}\n",
        text=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "FARENSE_HOME": str(home)},
    )
    told = "(modelo treinado; recomendado pelo modelo: temperatura 0,6, top-p 0,95)"
    assert done.stdout.count("recomendado") == done.stdout.count(told) == 1, done.stdout + done.stderr
    assert f"adaptador em {trained / 'best'}\n({told[1:]}" in done.stdout
    assert done.stdout.count(ANSWER) == 2  # offered, and not taken
