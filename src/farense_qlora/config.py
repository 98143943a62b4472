"""What a run is: one frozen, validated model whose fields are the only home of every setting.

A field's default, bounds, label and description yield the JSON file, the CLI flag, the widget and the error.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError, validation_message
from .profiles import PROFILES, SIXTEEN_BITS
from .text import plain

ROOT = Path(__file__).resolve().parents[2]  # the clone that holds this file
# FARENSE_HOME moves everything that a run reads and writes.
HOME = Path(os.environ.get("FARENSE_HOME") or ROOT)
RUNS = HOME / "checkpoints_qlora"
OUTPUT = HOME / "output"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farense_qlora"

TRAIN_DATA, VAL_DATA = "data/train_data.jsonl", "data/val_data.jsonl"  # what `prepare` writes
WINDOWS = ("cp1252", "windows-1252", "ansi")  # what "latin-1" is read as


def _setting(group: str, default: Any, label: str, description: str, **bounds: Any) -> Any:
    about: dict[str, Any] = {"group": group}
    return Field(default, title=label, description=description, json_schema_extra=about, **bounds)


in_model, in_adapter = partial(_setting, "Modelo"), partial(_setting, "Adaptador")
in_optimization, in_data = partial(_setting, "Otimização"), partial(_setting, "Dados")
in_evaluation, in_hosts = partial(_setting, "Avaliação"), partial(_setting, "Vários computadores")


class Settings(BaseModel):
    """Frozen values that a person may write: nothing unknown, and a decimal comma is a point."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _with_points(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, field in cls.model_fields.items():
            if field.annotation is float and isinstance(value := values.get(name), str):
                values = {**values, name: value.replace(",", ".")}
        return values

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate `values`; raises `UserError` in Portuguese."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UserError(validation_message(error)) from None


class Config(Settings):
    """Every setting of a training run. Relative paths start at the project's folder (`HOME`).

    >>> import farense_qlora as fq
    >>> fq.Config.of("mini", rank=8).changed(epochs=1).rank
    8
    """

    profile: str = in_model("mini", "Perfil", "Nome do perfil de onde partiram as definições.")
    model: str = in_model(
        "mini",
        "Modelo base",
        "A miniatura («mini»), uma pasta local ou um modelo do Hugging Face Hub.",
        min_length=1,
    )
    bits: Literal[2, 3, 4, 5, 6, 8, 16] = in_model(
        4,
        "Bits do modelo base",
        "16 = LoRA simples; menos = QLoRA (base quantizada). O que já vem quantizado fica como vem.",
    )
    quantization: Literal["affine", "mxfp4", "nvfp4"] = in_model(
        "affine",
        "Quantização",
        "affine = inteiros com escala e desvio; mxfp4 e nvfp4 = números de vírgula flutuante de 4 bits.",
    )
    group_size: Literal[32, 64, 128] = in_model(
        64, "Pesos por grupo", "Quantos pesos têm a mesma escala; mxfp4 e nvfp4 têm o seu (32 e 16)."
    )
    chat_template: str = in_model(
        "",
        "Modelo de conversa",
        "Ficheiro Jinja com que se escrevem as conversas (chat template); vazio = o do próprio modelo.",
    )

    rank: int = in_adapter(16, "Rank", "Característica (rank) das matrizes do adaptador.", ge=1, le=512)
    alpha: float = in_adapter(
        32.0, "Alpha", "Peso do adaptador: a escala aplicada é alpha / rank.", gt=0, le=4096
    )
    dropout: float = in_adapter(
        0.0, "Dropout", "Fração das entradas do adaptador anulada em cada atualização.", ge=0, lt=1
    )
    num_layers: int = in_adapter(
        -1, "Camadas", "Quantas camadas levam adaptador, a contar do fim; -1 = todas.", ge=-1
    )
    target_modules: tuple[str, ...] = in_adapter(
        (),
        "Módulos",
        "Camadas lineares com adaptador, pelo fim do nome (q_proj, v_proj, ...); vazio = todas menos os "
        "especialistas (MoE).",
    )
    from_adapter: str = in_adapter(
        "",
        "Continuar de",
        "Pasta de um adaptador (de um treino, de uma exportação, do mlx-lm ou do PEFT) de onde se parte; "
        "vazio = de um novo.",
    )

    epochs: float = in_optimization(
        3.0, "Épocas", "Quantas vezes se percorrem os dados de treino.", gt=0, le=1000
    )
    max_steps: int | None = in_optimization(
        None, "Máximo de atualizações", "Termina ao fim de tantas atualizações; vazio = sem limite.", ge=1
    )
    batch_size: int = in_optimization(4, "Tamanho do lote", "Linhas por micro-lote.", ge=1, le=4096)
    grad_accumulation_steps: int = in_optimization(
        1, "Acumulação de gradientes", "Micro-lotes por atualização.", ge=1, le=1024
    )
    learning_rate: float = in_optimization(
        2e-4,  # as in the paper (Dettmers et al., 2023, «QLoRA») for 7B
        "Taxa de aprendizagem",
        "Valor máximo, atingido no fim do aquecimento.",
        gt=0,
        le=1,
    )
    lora_plus_ratio: float = in_optimization(
        1.0,
        "Rácio LoRA+",
        "Quantas vezes a taxa de aprendizagem da matriz B é maior do que a da A.",
        ge=1,
        le=64,
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = in_optimization(
        "cosine", "Decaimento", "Como desce a taxa de aprendizagem depois do aquecimento."
    )
    warmup_ratio: float = in_optimization(
        0.05, "Aquecimento", "Fração das atualizações em que a taxa sobe até ao máximo.", ge=0, lt=1
    )
    weight_decay: float = in_optimization(0.0, "Decaimento dos pesos", "Regularização do AdamW.", ge=0, le=1)
    max_grad_norm: float = in_optimization(
        1.0, "Norma máxima do gradiente", "Gradientes de norma maior são reduzidos; 0 = sem limite.", ge=0
    )
    grad_checkpoint: bool = in_optimization(
        False, "Recalcular ativações", "Recalcula em vez de guardar: menos memória, atualizações mais lentas."
    )
    seed: int = in_optimization(0, "Semente", "Fixa a ordem dos dados e os números aleatórios.", ge=0)

    train_data: str = in_data(
        TRAIN_DATA,
        "Dados de treino",
        "Ficheiro (JSONL, JSON, CSV, TSV, Parquet, Arrow), pasta ou nome no Hub com as linhas de treino.",
        min_length=1,
    )
    val_data: str = in_data(
        VAL_DATA,
        "Dados de validação",
        "O mesmo, para validar; vazio = tiram-se do treino 10 % das linhas, no máximo 500.",
    )
    columns: str = in_data(
        "",
        "Colunas",
        "Que colunas são o quê, como «pergunta=Q,resposta=A»; vazio = reconhecem-se pelo nome.",
    )
    encoding: Literal["utf-8", "latin-1"] = in_data(
        "utf-8", "Codificação", "Como está escrito o texto que não for UTF-8 nem UTF-16, que se reconhecem."
    )
    remove_duplicates: bool = in_data(
        True,
        "Tirar repetidas",
        "Deixa de fora as linhas que repetem outra, e as da validação que estão no treino.",
    )
    answer_style: Literal["short", "sentences"] = in_data(
        "short",
        "Respostas",
        "short = como estão nas linhas; sentences = em frases inteiras, nas linhas que as têm.",
    )
    careless: float = in_data(
        0.0,
        "Escrita à pressa",
        "Fração das linhas de treino cuja pergunta se escreve à pressa: minúsculas, sem acentos, gralhas, "
        "abreviaturas, cumprimentos; as respostas nunca. As do clube já o estão.",
        ge=0,
        le=1,
    )
    max_seq_length: int = in_data(
        512, "Comprimento máximo", "Tokens por linha; o que passa é cortado e contado.", ge=16, le=131072
    )
    skip_bad: bool = in_data(
        False,
        "Saltar linhas más",
        "As linhas más ficam em rejected.jsonl, na pasta do treino, com a razão, e o treino segue.",
    )
    packing: bool = in_data(
        True, "Empacotar", "Junta linhas curtas na mesma janela, sem que se vejam: menos enchimento."
    )

    eval_every: int = in_evaluation(
        100, "Avaliar a cada", "Atualizações entre avaliações na validação.", ge=1
    )
    probes: int = in_evaluation(
        3,
        "Perguntas de amostra",
        "Perguntas da validação feitas ao modelo em cada avaliação, para se ver aprender; 0 = nenhuma.",
        ge=0,
        le=32,
    )
    early_stopping_patience: int = in_evaluation(
        0, "Paciência", "Avaliações sem melhoria até parar; 0 = nunca parar antes do fim.", ge=0
    )
    save_every: int = in_evaluation(200, "Guardar a cada", "Atualizações entre pontos de controlo.", ge=1)
    keep_last: int = in_evaluation(
        3, "Manter os últimos", "Pontos de controlo que ficam no disco, além do melhor.", ge=1
    )

    hosts: str = in_hosts(
        "",
        "Computadores",
        "Ficheiro de mlx.distributed_config com os computadores que treinam juntos, este em primeiro; "
        "vazio = só este.",
    )
    reduce_dtype: Literal["float32", "bfloat16"] = in_hosts(
        "float32",
        "Gradientes na rede",
        "Como vão os gradientes de um computador para os outros; bfloat16 = metade dos bytes.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The club's validation file is for the club's rows: those of others are split, unless said. An
        encoding may be called by its other names."""
        values = {name: value for name, value in values.items() if name != "keep_every"}  # in older runs
        if str(values.get("encoding")).lower() in WINDOWS:
            values["encoding"] = "latin-1"
        if values.get("train_data", TRAIN_DATA) != TRAIN_DATA and "val_data" not in values:
            return {**values, "val_data": ""}
        return values

    @model_validator(mode="after")
    def _known_layers(self) -> "Config":
        if self.num_layers == 0:
            raise ValueError("num_layers: 0 não treina nada; use -1 (todas) ou um número positivo")
        return self

    @model_validator(mode="after")
    def _known_quantization(self) -> "Config":
        if self.quantization != "affine" and self.bits != 4:
            raise ValueError(f"quantization: {self.quantization} tem sempre 4 bits; use --bits 4, ou affine")
        return self

    @property
    def base_model(self) -> str:
        """The model to load: `model`, or the one of 16 bits that it was made from."""
        return SIXTEEN_BITS.get(self.model, self.model) if self.bits == 16 else self.model

    @classmethod
    def by_group(cls) -> dict[str, list[str]]:
        """The names of the settings under the title of their group."""
        groups: dict[str, list[str]] = {}
        for name, field in cls.model_fields.items():
            groups.setdefault(field.json_schema_extra["group"], []).append(name)  # type: ignore
        return groups

    @classmethod
    def of(cls, profile: str = "mini", **changes: Any) -> "Config":
        """The profile's settings with `changes` on top; raises `UserError` naming the first bad value."""
        if profile not in PROFILES:
            raise UserError(f"perfil desconhecido: «{profile}»; os perfis são {', '.join(PROFILES)}")
        return cls.parse({"profile": profile, **PROFILES[profile], **changes})

    @classmethod
    def read(cls, path: Path) -> "Config":
        """The config stored in the JSON file `path`; raises `UserError` when there is none, or a bad one."""
        try:
            return cls.parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"não consigo ler a configuração {path}: {error}") from None

    def write(self, path: Path) -> None:
        """Store the config as JSON in the file `path`; raises `OSError`."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def changed(self, **changes: Any) -> "Config":
        """A copy with `changes`, validated again."""
        values = self.model_dump()
        if "train_data" in changes and self.val_data in ("", VAL_DATA):
            del values["val_data"]
        return type(self).parse({**values, **changes})

    def _repr_html_(self) -> str:
        """Every setting with its value and what it does."""
        from .table import Table

        rows = [
            {"Definição": field.title, "Valor": _shown(getattr(self, name)), "O que faz": field.description}
            for name, field in type(self).model_fields.items()
        ]
        return Table(rows, caption=f"Definições do treino (perfil {self.profile})")._repr_html_()


def _shown(value: object) -> str:
    """The value of a setting for people."""
    match value:
        case None:
            return "sem limite"
        case "":
            return "—"
        case bool():
            return "sim" if value else "não"
        case tuple():
            return ", ".join(map(str, value)) or "todos"
        case float():
            return plain(value)
    return str(value)
