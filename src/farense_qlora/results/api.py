"""What the server takes: a request as a checked model, and the OpenAPI description of the routes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import Limits
from ..errors import UserError
from .generate import MAX_TOKENS

# What mlx-lm's server does not know, or what is given to it apart.
NOT_FOR_MLX_LM = {"n", "user", "model"}
LENGTHS = ("max_completion_tokens", "max_tokens")


class Checked(BaseModel):
    """No surprises: nothing unknown, no numbers as text, no infinities, no halves of characters."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Part(Checked):
    """A piece of a message; only text is taken."""

    type: Literal["text"]
    text: str


class ChatMessage(Checked):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        """What was said, its pieces joined."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Checked):
    """What else a stream should carry."""

    include_usage: bool = False


class ChatRequest(Checked):
    """A request of the OpenAI chat API, as far as it makes sense for one tuned model; null is the default."""

    messages: list[ChatMessage] = Field(
        min_length=1, description="A conversa; a última mensagem é do utilizador."
    )
    model: str | None = Field(None, description="O modelo que /v1/models nomeia, ou nada; outro dá 404.")
    stream: bool | None = Field(None, description="Responder aos bocados, em eventos SSE.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(
        None, ge=1, description=f"Tokens da resposta (predefinição: {MAX_TOKENS})."
    )
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
    seed: int | None = Field(None, ge=0, le=2**53 - 1)
    stop: str | list[str] | None = Field(None, description="Textos (no máximo 4) em que a resposta acaba.")
    n: int | None = Field(None, ge=1, le=1, description="Uma resposta por pedido.")
    user: str | None = Field(None, description="Aceite e não usado, nem guardado.")

    @classmethod
    def read(cls, body: bytes, limits: Limits) -> "ChatRequest":
        """The request in `body`; raises `UserError` that names the first thing wrong with it."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise UserError(_in_portuguese(error)) from None
        if request.messages[-1].role != "user":
            raise UserError("messages: a última mensagem tem de ser do utilizador (role: user)")
        for name in LENGTHS:
            if (getattr(request, name) or 0) > limits.max_tokens:
                raise UserError(f"{name}: pode ser no máximo {limits.max_tokens}")
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        if len(stops) > 4 or any(not 0 < len(text) <= 64 for text in stops):
            raise UserError("stop: no máximo 4 textos, de 1 a 64 caracteres")
        return request

    @property
    def conversation(self) -> list[dict[str, str]]:
        """The messages as a chat template takes them."""
        return [{"role": message.role, "content": message.text} for message in self.messages]

    def for_mlx_lm(self, model: str) -> dict[str, Any]:
        """The body that mlx-lm's handler is given in place of the client's."""
        body = self.model_dump(exclude_none=True, exclude=NOT_FOR_MLX_LM)
        return {**body, "model": model, "messages": self.conversation}


_REASONS = {
    "missing": "falta",
    "extra_forbidden": "este campo não é suportado",
    "greater_than": "tem de ser maior do que {gt}",
    "greater_than_equal": "tem de ser pelo menos {ge}",
    "less_than_equal": "pode ser no máximo {le}",
    "literal_error": "os valores possíveis são {expected}",
    "finite_number": "tem de ser um número finito",
    "too_short": "não pode ficar vazio",
    "string_type": "tem de ser texto",
    "bool_type": "tem de ser true ou false",
    "int_type": "tem de ser um número inteiro",
    "float_type": "tem de ser um número",
    "list_type": "tem de ser uma lista",
}


def _in_portuguese(error: ValidationError) -> str:
    """The first error; a value of the request is not repeated in it."""
    first = error.errors(include_input=False)[0]
    if first["type"] == "json_invalid":
        return "o corpo do pedido não é JSON válido"
    place = ".".join(str(part) for part in first["loc"])[:100]
    if not place:
        return "o corpo do pedido tem de ser um objeto JSON"
    reason = _REASONS.get(first["type"], "valor inválido").format(**first.get("ctx", {}))
    return f"{place}: {reason.replace(' or ', ' ou ')}"


def openapi(limits: Limits) -> dict[str, Any]:
    """The routes as OpenAPI 3.1; the schema of a request is that of `ChatRequest`, with our `limits`."""
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = {**schema.pop("$defs"), "ChatRequest": schema}
    for name in LENGTHS:
        schema["properties"][name]["anyOf"][0]["maximum"] = limits.max_tokens
    for part in schemas.values():
        part.pop("description", None)  # a docstring, in English
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
            }
        },
    }
    refused = {
        "description": "Pedido recusado; a mensagem diz porquê.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    asking = {
        "summary": "Responde a uma conversa",
        "security": [{}, {"token": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        },
        "responses": {
            "200": {
                "description": "A resposta, inteira ou (com stream) aos bocados.",
                "content": {
                    "application/json": {"schema": {"type": "object", "required": ["choices"]}},
                    "text/event-stream": {},
                },
            },
            **dict.fromkeys(("400", "401", "404", "408", "411", "413", "415", "429", "503"), refused),
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "farense-qlora",
            "version": "1",
            "description": "A API de conversa da OpenAI, servida por um modelo treinado.",
        },
        "paths": {
            "/v1/chat/completions": {"post": asking},
            "/v1/models": {"get": _getting("O modelo que há", {"401": refused})},
            "/health": {"get": _getting("Se o servidor responde", {"503": refused})},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _getting(summary: str, refused: dict[str, Any]) -> dict[str, Any]:
    """A route that is only read."""
    answer = {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"summary": summary, "responses": {"200": answer, **refused}}
