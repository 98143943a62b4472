"""What a run is: one frozen, validated model whose fields are the only home of every setting.

A field's default, bounds, label and description yield the JSON file, the CLI flag, the widget and the error.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError, validation_message

# FARENSE_HOME moves everything that a run reads and writes; otherwise it is the clone that holds this file.
HOME = Path(os.environ.get("FARENSE_HOME") or Path(__file__).resolve().parents[2])
RUNS = HOME / "checkpoints_qlora"
OUTPUT = HOME / "output"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farense_qlora"

TRAIN_DATA, VAL_DATA = "data/train_data.jsonl", "data/val_data.jsonl"  # what `prepare` writes
GROUPS = {
    "model": "Modelo",
    "adapter": "Adaptador",
    "optimization": "Otimização",
    "data": "Dados",
    "evaluation": "Avaliação",
}


def setting(default: Any, group: str, label: str, description: str, **bounds: Any) -> Any:
    """A config field with everything that a face of it (flag, widget, table) needs to know."""
    return Field(default, title=label, description=description, json_schema_extra={"group": group}, **bounds)


class Config(BaseModel):
    """Every setting of a training run. Relative paths start at the project's folder (`HOME`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    profile: str = setting("mini", "model", "Perfil", "Nome do perfil de onde partiram as definições.")
    model: str = setting(
        "mini",
        "model",
        "Modelo base",
        "A miniatura («mini»), uma pasta local ou um modelo do Hugging Face Hub.",
        min_length=1,
    )
    bits: Literal[4, 16] = setting(
        4, "model", "Bits do modelo base", "4 = QLoRA (base quantizada); 16 = LoRA simples."
    )
    chat_template: str = setting(
        "",
        "model",
        "Modelo de conversa",
        "Ficheiro Jinja com que se escrevem as conversas (chat template); vazio = o do próprio modelo.",
    )

    rank: int = setting(16, "adapter", "Rank", "Dimensão das matrizes de baixa ordem.", ge=1, le=512)
    alpha: float = setting(
        32.0, "adapter", "Alpha", "Peso do adaptador: a escala aplicada é alpha / rank.", gt=0, le=4096
    )
    dropout: float = setting(
        0.0, "adapter", "Dropout", "Fração das entradas do adaptador anulada em cada passo.", ge=0, lt=1
    )
    num_layers: int = setting(
        -1, "adapter", "Camadas", "Quantas camadas levam adaptador, a contar do fim; -1 = todas.", ge=-1
    )
    target_modules: tuple[str, ...] = setting(
        (),
        "adapter",
        "Módulos",
        "Camadas lineares com adaptador, pelo fim do nome (q_proj, v_proj, ...); vazio = todas.",
    )

    from_adapter: str = setting(
        "",
        "adapter",
        "Continuar de",
        "Pasta de um adaptador (de um treino, de uma exportação, do mlx-lm ou do PEFT) de onde se parte; "
        "vazio = de um novo.",
    )

    epochs: float = setting(
        3.0, "optimization", "Épocas", "Quantas vezes se percorrem os dados de treino.", gt=0, le=1000
    )
    max_steps: int | None = setting(
        None,
        "optimization",
        "Máximo de passos",
        "Termina ao fim de tantas atualizações; vazio = sem limite.",
        ge=1,
    )
    batch_size: int = setting(4, "optimization", "Tamanho do lote", "Linhas por micro-lote.", ge=1, le=4096)
    grad_accumulation_steps: int = setting(
        1, "optimization", "Acumulação de gradientes", "Micro-lotes por atualização.", ge=1, le=1024
    )
    learning_rate: float = setting(
        2e-4,
        "optimization",
        "Taxa de aprendizagem",
        "Valor máximo, atingido no fim do aquecimento.",
        gt=0,
        le=1,
    )
    lora_plus_ratio: float = setting(
        1.0,
        "optimization",
        "Rácio LoRA+",
        "Quantas vezes a taxa de aprendizagem da matriz B é maior do que a da A.",
        ge=1,
        le=64,
    )
    lr_schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "optimization", "Decaimento", "Como desce a taxa de aprendizagem depois do aquecimento."
    )
    warmup_ratio: float = setting(
        0.05,
        "optimization",
        "Aquecimento",
        "Fração das atualizações em que a taxa sobe até ao máximo.",
        ge=0,
        lt=1,
    )
    weight_decay: float = setting(
        0.0, "optimization", "Decaimento dos pesos", "Regularização do AdamW.", ge=0, le=1
    )
    max_grad_norm: float = setting(
        1.0,
        "optimization",
        "Norma máxima do gradiente",
        "Gradientes de norma maior são reduzidos; 0 = sem limite.",
        ge=0,
    )
    grad_checkpoint: bool = setting(
        False,
        "optimization",
        "Recalcular ativações",
        "Recalcula em vez de guardar: menos memória, passos mais lentos.",
    )
    seed: int = setting(0, "optimization", "Semente", "Fixa a ordem dos dados e os números aleatórios.", ge=0)

    train_data: str = setting(
        TRAIN_DATA,
        "data",
        "Dados de treino",
        "Ficheiro (JSONL, JSON, CSV, TSV, Parquet, Arrow), pasta ou nome no Hub com as linhas de treino.",
        min_length=1,
    )
    val_data: str = setting(
        VAL_DATA,
        "data",
        "Dados de validação",
        "O mesmo, para validar; vazio = tiram-se do treino 10 % das linhas, no máximo 500.",
    )
    columns: str = setting(
        "",
        "data",
        "Colunas",
        "Que colunas são o quê, como «pergunta=Q,resposta=A»; vazio = reconhecem-se pelo nome.",
    )
    encoding: Literal["utf-8", "latin-1"] = setting(
        "utf-8", "data", "Codificação", "Como estão escritos os ficheiros de texto; UTF-16 reconhece-se."
    )
    remove_duplicates: bool = setting(
        True,
        "data",
        "Tirar repetidas",
        "Deixa de fora as linhas que repetem outra, e as da validação que estão no treino.",
    )
    max_seq_length: int = setting(
        512,
        "data",
        "Comprimento máximo",
        "Tokens por linha; o que passa é cortado e contado.",
        ge=16,
        le=131072,
    )

    skip_bad: bool = setting(
        False,
        "data",
        "Saltar linhas más",
        "As linhas más ficam em rejected.jsonl, na pasta do treino, com a razão, e o treino segue.",
    )
    packing: bool = setting(
        True, "data", "Empacotar", "Junta linhas curtas na mesma janela, sem que se vejam: menos enchimento."
    )

    eval_every: int = setting(
        100, "evaluation", "Avaliar a cada", "Atualizações entre avaliações na validação.", ge=1
    )
    probes: int = setting(
        3,
        "evaluation",
        "Perguntas de amostra",
        "Perguntas da validação feitas ao modelo em cada avaliação, para se ver aprender; 0 = nenhuma.",
        ge=0,
        le=32,
    )
    early_stopping_patience: int = setting(
        0,
        "evaluation",
        "Paciência",
        "Avaliações sem melhoria até parar; 0 = nunca parar antes do fim.",
        ge=0,
    )
    save_every: int = setting(
        200, "evaluation", "Guardar a cada", "Atualizações entre pontos de controlo.", ge=1
    )

    keep_last: int = setting(
        3, "evaluation", "Manter os últimos", "Pontos de controlo que ficam no disco, além do melhor.", ge=1
    )
    keep_every: int = setting(
        0,
        "evaluation",
        "Manter a cada",
        "Destas em destas atualizações um ponto de controlo fica para sempre; 0 = nenhum.",
        ge=0,
    )

    @model_validator(mode="before")
    @classmethod
    def _own_validation(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The club's validation file is for the club's rows: those of others are split, unless said."""
        if values.get("train_data", TRAIN_DATA) != TRAIN_DATA and "val_data" not in values:
            return {**values, "val_data": ""}
        return values

    @model_validator(mode="after")
    def _known_layers(self) -> "Config":
        if self.num_layers == 0:
            raise ValueError("num_layers: 0 não treina nada; use -1 (todas) ou um número positivo")
        return self

    @classmethod
    def of(cls, profile: str = "mini", **changes: Any) -> "Config":
        """The profile's settings with `changes` on top; raises `UserError` naming the first bad value."""
        if profile not in PROFILES:
            raise UserError(f"perfil desconhecido: «{profile}»; os perfis são {', '.join(PROFILES)}")
        return cls.parse({"profile": profile, **PROFILES[profile], **changes})

    @classmethod
    def parse(cls, values: dict[str, Any]) -> "Config":
        """Validate `values`; raises `UserError` in Portuguese."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UserError(validation_message(error)) from None

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


MISTRAL_7B = {
    "model": "mistralai/Mistral-7B-Instruct-v0.3",
    "rank": 16,
    "alpha": 32.0,
    "epochs": 3.0,
    "batch_size": 1,
    "grad_accumulation_steps": 8,
    "learning_rate": 1e-4,
    "grad_checkpoint": True,
    "max_seq_length": 512,
    "eval_every": 100,
    "save_every": 100,
    "early_stopping_patience": 3,
}
PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "model": "mini",
        "rank": 32,
        "alpha": 64.0,
        "epochs": 5.0,
        "batch_size": 16,
        "learning_rate": 3e-4,
        "lora_plus_ratio": 8.0,
        "max_seq_length": 128,
        "eval_every": 170,
        "save_every": 300,
    },
    # For 16 GB; the other two differ from it in what decides the memory.
    "mistral-7b": MISTRAL_7B,
    "mistral-7b-8gb": {
        **MISTRAL_7B,
        "model": "mlx-community/Mistral-7B-Instruct-v0.3-4bit",
        "rank": 8,
        "alpha": 16.0,
        "num_layers": 16,
        "max_seq_length": 256,
    },
    "mistral-7b-32gb": {
        **MISTRAL_7B,
        "batch_size": 4,
        "grad_accumulation_steps": 2,
        "grad_checkpoint": False,
        "max_seq_length": 1024,
    },
}
