"""The commands and their flags; every field of the config is a flag of `train`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_origin

from ..answers.sampling import Sampling
from ..config import HOME, OUTPUT, Config
from ..exporting.kinds import FORMATS
from ..profiles import PROFILES
from ..serving.api import Limits
from . import commands, trained
from .portuguese import Parser


def build_parser() -> Parser:
    """The whole command line; parsing leaves the function to call in `command`."""
    root = Parser(prog="farense-qlora", description="Ensina um modelo a responder sobre o Farense.")
    root.set_defaults(command=lambda args: root.print_help())
    group = root.add_subparsers(title="comandos", metavar="COMANDO")

    def add(command: Callable[[argparse.Namespace], int | None], summary: str) -> Parser:
        about = f"{summary[0].upper()}{summary[1:]}."
        sub: Parser = group.add_parser(command.__name__, help=summary, description=about)
        sub.set_defaults(command=command)
        return sub

    sub = add(commands.prepare, "cria os dados de treino a partir das tabelas de factos")
    data = HOME / "data"
    sub.add_argument("--facts", type=Path, default=data / "facts", metavar="PASTA", help="as tabelas CSV")
    sub.add_argument("--to", type=Path, default=data, metavar="PASTA", help="onde ficam os ficheiros JSONL")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="muda a divisão dos dados (0)")

    sub = add(commands.data, "diz o que o treino fará das linhas, e mostra o que delas se aprende")
    sub.add_argument("--check", action="store_true", help="confere sem treinar (é o que este comando faz)")
    shown = "linhas a mostrar, o que se aprende entre « » (3)"
    sub.add_argument("--rows", type=int, default=3, metavar="N", help=shown)

    sub = add(commands.train, "treina um adaptador; Ctrl-C guarda, avalia e termina")
    sub.add_argument("--run", metavar="NOME", help="nome do treino; se já existe, continua")
    sub.add_argument("--resume", action="store_true", help="continua com as definições do próprio treino")
    sub.add_argument("--accept-changes", action="store_true", help="continua com outras definições ou dados")

    sub = add(commands.hosts, "diz que computadores podem treinar juntos, ou quanto se ganhava com mais")
    sub.add_argument("file", nargs="?", type=Path, metavar="FICHEIRO", help="o de mlx.distributed_config")
    sub.add_argument("--plan", action="store_true", help="calcula quanto mais depressa treinavam 1 a 1000")

    speed = "para --plan: os tokens por segundo de um computador (o que o «fit» mediu neste)"
    sub.add_argument("--tokens-per-second", type=_number, metavar="N", help=speed)

    add(commands.fit, "mede se o treino cabe na memória, e propõe o que cabe")

    sub = add(commands.stop, "guarda um treino a decorrer e termina-o")
    sub.add_argument("--run", metavar="NOME", help="o treino (o único que esteja a decorrer)")

    sub = add(commands.runs, "mostra todos os treinos, apaga alguns ou muda o nome a um")
    change = sub.add_mutually_exclusive_group()
    change.add_argument("--delete", nargs="+", metavar="NOME", help="apaga esses treinos; pergunta antes")
    change.add_argument("--rename", nargs=2, metavar=("NOME", "NOVO"), help="muda o nome a um treino")
    sub.add_argument("--yes", action="store_true", help="apaga sem perguntar")

    sub = add(commands.queue, "mostra os últimos ensaios (fq.trials), para-os ou continua-os")
    change = sub.add_mutually_exclusive_group()
    change.add_argument("--stop", action="store_true", help="guarda o que está a treinar, e para-os")
    change.add_argument("--resume", action="store_true", help="continua-os de onde ficaram")

    sub = add(commands.monitor, "acompanha um treino no terminal; Ctrl-C sai e o treino continua")
    sub.add_argument("--run", metavar="NOME", help="o treino (o que estiver ou vier a estar a decorrer)")
    sub.add_argument("--once", action="store_true", help="mostra como está agora e termina")

    sub = add(commands.track, "copia os números de um treino para um registo de experiências; Ctrl-C sai")
    sub.add_argument("--run", metavar="NOME", help="o treino (o que estiver a decorrer, ou o último)")
    sub.add_argument("--to", required=True, metavar="REGISTO", help="tensorboard, mlflow, wandb ou trackio")

    sub = add(commands.report, "escreve um relatório de um treino, num só ficheiro HTML")
    sub.add_argument("--run", metavar="NOME", help="o treino (o último terminado)")
    sub.add_argument("--to", type=Path, default=OUTPUT, metavar="PASTA", help="a pasta de destino (output)")

    sub = add(commands.doctor, "vê se está tudo pronto para treinar, e diz o que falta")
    sub.add_argument(
        "--share", action="store_true", help="só uma tabela para partilhar: sem nomes nem caminhos"
    )

    sub = add(trained.evaluate, "mede as respostas a perguntas que ficaram de fora do treino")
    _adapter_flags(sub)
    others = "outras perguntas e respostas, num ficheiro como os de treino"
    sub.add_argument("--data", type=Path, metavar="FICHEIRO", help=others)
    sub.add_argument("--base", action="store_true", help="mede também o modelo base, sem adaptador")

    sub = add(trained.compare, "compara o modelo base, LoRA e QLoRA, ou os treinos que disser")
    sub.add_argument("--runs", nargs="+", metavar="NOME", help="treinos já feitos (sem isto, treina)")
    folder = OUTPUT / "compare"
    sub.add_argument("--to", type=Path, default=folder, metavar="PASTA", help="onde fica o relatório")

    sub = add(trained.ask, "faz uma pergunta ao modelo treinado")
    sub.add_argument("question", nargs="+", metavar="PERGUNTA", help="a pergunta")
    _adapter_flags(sub)
    _answer_flags(sub)

    sub = add(trained.chat, "conversa com o modelo treinado")
    _adapter_flags(sub)
    _answer_flags(sub)

    sub = add(trained.serve, "serve o modelo treinado, ou vários, pela API de conversa da OpenAI")
    _adapter_flags(sub, nargs="+", action="extend")
    sub.add_argument("--host", default="127.0.0.1", metavar="NOME", help="o endereço do servidor (127.0.0.1)")
    sub.add_argument("--port", type=int, default=8080, metavar="N", help="a porta; 0 = uma livre (8080)")
    key = "ficheiro com a chave que se pede a quem pergunta (a variável FARENSE_API_KEY)"
    sub.add_argument("--token-file", type=Path, metavar="FICHEIRO", help=key)
    origin = "página de outro endereço que pode perguntar, como https://exemplo.pt (nenhuma)"
    sub.add_argument("--cors", nargs="+", default=[], metavar="ORIGEM", help=origin)
    section = sub.add_argument_group("Limites")
    for name, field in Limits.model_fields.items():
        described = f"{field.description} ({field.default})"
        section.add_argument(
            f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, metavar="N", help=described
        )

    sub = add(trained.export, "guarda o melhor adaptador de um treino numa pasta pronta a levar")
    sub.add_argument("--run", metavar="NOME", help="o treino (o último terminado)")
    where = "o destino (output/TREINO-FORMATO; com vários formatos, PASTA/FORMATO)"
    sub.add_argument("--to", type=Path, metavar="PASTA", help=where)
    replace = "substitui toda a pasta de destino, mesmo que seja de outro treino ou tenha mudanças suas"
    sub.add_argument("--replace", action="store_true", help=replace)
    what = f"um ou mais de {', '.join(FORMATS)} (mlx)"
    sub.add_argument("--format", nargs="+", choices=FORMATS, default=["mlx"], metavar="FORMATO", help=what)
    converter = "escreve GGUF com o conversor do llama.cpp, que está nesta pasta (para outros modelos)"
    sub.add_argument("--converter", type=Path, metavar="PASTA", help=converter)
    push = "envia-o depois para o Hub, privado se for novo (um só formato)"
    sub.add_argument("--push", metavar="DONO/NOME", help=push)

    sub = add(trained.merge, "junta os adaptadores de vários treinos da mesma base num só")
    sub.add_argument("runs", nargs="+", metavar="TREINO", help="os treinos, dois ou mais")
    weights = "quanto conta cada um, pela mesma ordem (sem isto, todos o mesmo: a média)"
    sub.add_argument("--weights", nargs="+", type=_number, default=[], metavar="N", help=weights)
    sub.add_argument("--run", required=True, metavar="NOME", help="nome do treino que fica com o resultado")

    for name, sub in group.choices.items():
        if name not in ("chat", "serve"):  # which have no result
            sub.add_argument("--json", action="store_true", help="escreve o resultado num só objeto JSON")
    for name in ("data", "train", "hosts", "fit", "compare"):
        _config_flags(group.choices[name])
    return root


def _adapter_flags(parser: Parser, **several: Any) -> None:
    adapter, run = parser.add_mutually_exclusive_group(), "o treino que deu o adaptador (o último terminado)"
    adapter.add_argument("--run", metavar="NOME", help=run, **several)
    adapter.add_argument("--adapter", type=Path, metavar="PASTA", help="um adaptador exportado", **several)
    parser.add_argument("--model", metavar="MODELO", help="o modelo base (aquele de que o treino partiu)")


def _answer_flags(parser: Parser) -> None:
    parser.add_argument("--no-adapter", action="store_true", help="pergunta ao modelo base, para comparar")
    parser.add_argument("--thinking", action="store_true", help="deixa o modelo pensar antes de responder")
    parser.add_argument("--system", default="", metavar="TEXTO", help="instruções que o modelo lê primeiro")
    for name, field in Sampling.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=argparse.SUPPRESS, metavar="N", help=field.description)


def _config_flags(parser: Parser) -> None:
    """A flag for each field of `Config`; texts go to it as they are, since it checks them and explains."""
    parser.usage = f"{parser.prog} [opções]"
    for title, names in Config.by_group().items():
        section = parser.add_argument_group(title)
        for name in names:
            field = Config.model_fields[name]
            settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(name, field.description)}
            if field.annotation is bool:
                settings["action"] = argparse.BooleanOptionalAction
            elif isinstance(field.default, tuple):
                settings |= {"nargs": "*", "metavar": "NOME"}
            elif get_origin(field.annotation) is Literal:
                settings |= {"type": _choice, "metavar": "VALOR"}
            else:
                settings["metavar"] = "VALOR"
            section.add_argument(f"--{name.replace('_', '-')}", **settings)


def _number(text: str) -> float:
    """A number as it is printed, with a decimal comma, or with a point."""
    return float(text.replace(",", "."))


def _choice(text: str) -> int | str:
    """A value to compare with those of a `Literal`, where a number must be a number."""
    return int(text) if text.isdecimal() else text


def _help(name: str, description: str | None) -> str:
    """The description of a field, and its default in each profile."""
    values = {profile: getattr(Config.of(profile), name) for profile in PROFILES}
    if name == "profile":
        default = f"um de: {', '.join(PROFILES)}; predefinição: {Config().profile}"
    elif len(set(values.values())) == 1:
        default = f"predefinição: {word(Config.model_fields[name].default)}"
    else:
        default = "; ".join(f"{profile}: {word(value)}" for profile, value in values.items())
    return f"{description} ({default})".replace("%", "%%")


def word(value: Any) -> str:
    """A default as it is typed, or in words."""
    words = {"True": "sim", "False": "não", "None": "nenhum", "()": "vazio"}
    return words.get(str(value), str(value))
