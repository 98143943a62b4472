"""What the server takes: its limits, and a request as a checked model, which also describes it to others."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..answers.sampling import Sampling
from ..config import Settings

SEEDS = 2**53  # whole numbers that JSON keeps whole
UNUSED = "Aceite e não usado, nem guardado."
# Fields that are taken only where they ask for nothing.
NEUTRAL = {
    *("tools", "tool_choice", "functions", "function_call", "tool_calls", "tool_call_id", "logit_bias"),
    *("logprobs", "top_logprobs", "response_format", "modalities", "audio", "prediction", "refusal"),
    *("reasoning_effort", "verbosity", "web_search_options"),
}


class Limits(Settings):
    """What the server gives to one request, and to all; beyond it refuses, and says why."""

    max_body: int = Field(262_144, ge=1_000, description="bytes de um pedido")
    max_prompt: int = Field(2_048, ge=16, description="tokens da conversa que vem no pedido")
    max_tokens: int = Field(1_024, ge=1, description="tokens da resposta")
    max_requests: int = Field(32, ge=1, description="respostas ao mesmo tempo")
    max_connections: int = Field(256, ge=1, description="ligações abertas ao mesmo tempo")
    max_seconds: int = Field(10, ge=1, description="segundos para chegar um pedido, e de espera por quem lê")


def _without_docstring(schema: dict[str, Any]) -> None:
    schema.pop("description", None)  # for those who read the description, all of which is in Portuguese


class Checked(BaseModel):
    """No surprises: nothing unknown, no numbers as text, no infinities."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=_without_docstring
    )


class Part(Checked):
    """A piece of a message; only text is taken."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None


class ChatMessage(Checked):
    """One turn of the conversation; an answer may come back with all that it had, or without a text."""

    model_config = ConfigDict(
        json_schema_extra={
            "description": "Uma mensagem; só a do assistente pode vir sem texto.",
            "anyOf": [
                {"properties": {"role": {"const": "assistant"}}},
                {"properties": {"content": {"not": {"type": "null"}}}},
            ],
        }
    )
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None
    name: str | None = None
    annotations: list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_call_id: None = None
    tool_calls: list[Any] | None = Field(None, max_length=0)

    @property
    def text(self) -> str:
        """What was said, its pieces joined; an answer without text is null."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Checked):
    """What else a stream should carry."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Text(Checked):
    """The one format of answers."""

    type: Literal["text"]


def _not_zero(value: Any) -> Any:
    """Of `Literal[False]`: 0 would pass for it."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(value)
    return value


class ChatRequest(Checked):
    """A request of the OpenAI chat API, as far as it makes sense for tuned models; null is the default. What
    changes nothing here is taken too, so that any client may ask; what would, and is not done, is refused."""

    messages: list[ChatMessage] = Field(
        min_length=1, description="A conversa; a última mensagem é do utilizador."
    )
    model: str | None = Field(
        None, description="Um dos que /v1/models dá, ou nada: o primeiro; outro dá 404."
    )
    stream: bool | None = Field(None, description="Responder aos bocados, em eventos SSE.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="Tokens da resposta; o servidor tem um máximo.")
    max_completion_tokens: int | None = Field(None, ge=1, description="O nome novo de max_tokens.")
    temperature: float | None = Field(
        None, ge=0, le=2, description="0, a predefinição: sempre a mesma resposta."
    )
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, gt=-SEEDS, lt=SEEDS)
    stop: str | list[str] | None = Field(None, description="Textos (no máximo 4) em que a resposta acaba.")
    n: int | None = Field(None, ge=1, le=1, description="Uma resposta por pedido.")
    user: str | None = Field(None, description=UNUSED)
    safety_identifier: str | None = Field(None, description=UNUSED)
    prompt_cache_key: str | None = Field(None, description=UNUSED)
    prompt_cache_retention: str | None = Field(None, description=UNUSED)
    metadata: dict[str, Any] | None = Field(None, description=UNUSED)
    store: bool | None = Field(None, description=UNUSED)
    service_tier: str | None = Field(None, description=UNUSED)
    parallel_tool_calls: bool | None = Field(None, description=UNUSED)
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] | None = Field(None, max_length=0)
    function_call: Literal["none", "auto"] | None = None
    logit_bias: dict[str, Any] | None = Field(None, max_length=0)
    logprobs: Annotated[Literal[False] | None, BeforeValidator(_not_zero)] = None
    top_logprobs: int | None = Field(None, ge=0, le=0)
    response_format: Text | None = None
    modalities: list[Literal["text"]] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None

    @model_validator(mode="after")
    def _beyond_the_schema(self) -> "ChatRequest":
        if self.messages[-1].role != "user":
            raise ValueError("messages: a última mensagem tem de ser do utilizador (role: user)")
        for number, message in enumerate(self.messages):
            if message.content is None and message.role != "assistant":
                raise ValueError(f"messages.{number}.content: tem de ser texto")
        if len(self.stops) > 4 or any(not 0 < len(text) <= 64 for text in self.stops):
            raise ValueError("stop: no máximo 4 textos, de 1 a 64 caracteres")
        return self

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as a chat template takes them, which knows no «developer»."""
        return [
            {"role": "system" if message.role == "developer" else message.role, "content": message.text}
            for message in self.messages
        ]

    @property
    def sampling(self) -> Sampling:
        """How the answer is chosen; clients may send a top-p of 0 for none, and a seed below it."""
        seed = None if self.seed is None else self.seed % SEEDS
        return Sampling(temperature=self.temperature or 0, top_p=self.top_p or 1, seed=seed)

    @property
    def stops(self) -> list[str]:
        """The texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def answer_tokens(self, default: int, limits: Limits) -> int:
        """The most tokens that the answer may have: as many as are asked for, but no more than the limit."""
        return min(self.max_completion_tokens or self.max_tokens or default, limits.max_tokens)


class Problem(Checked):
    """Why a request was refused."""

    message: str
    type: str
    param: None = None
    code: str


class Failure(Checked):
    """A refusal, as the OpenAI API writes it."""

    error: Problem
