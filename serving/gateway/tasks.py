"""What each route asks of a model, checked before any engine is woken for it."""

from models.errors import BadRequestError
from models.tasks import Task
from serving.gateway.surface import OPERATIONS
from serving.protocol import ModelRoute

CHAT = frozenset({Task.GENERATE})
EMBED = frozenset({Task.EMBED})
SCORE = frozenset({Task.EMBED, Task.CLASSIFY})
ANY = frozenset(Task)

ASKS: dict[str, frozenset[Task]] = {
    "/v1/embeddings": EMBED,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"), SCORE),
    **dict.fromkeys(("/tokenize", "/detokenize"), ANY),
}
"""For the routes that not each model that generates has; embeddings are compared to score."""

ROUTES_OF = {
    Task.GENERATE: "/v1/chat/completions, /v1/completions, /v1/responses or /v1/messages",
    Task.EMBED: "/v1/embeddings, /v1/score or /v1/rerank",
    Task.CLASSIFY: "/v1/rerank or /v1/score",
}
IS = {Task.GENERATE: "generates text", Task.EMBED: "embeds texts", Task.CLASSIFY: "scores texts"}

ACCEPTS = {operation.path: ASKS.get(operation.path, CHAT) for operation in OPERATIONS}


class WrongTaskError(BadRequestError):
    """A request for what the model is not made for."""

    code = "unsupported_task"


def check_task(route: ModelRoute, path: str) -> None:
    """Refuses what the model cannot do, as far as its task is known.

    Raises:
        WrongTaskError: Saying what the model is for.
    """
    task = route.task
    if task is None or task in ACCEPTS[path]:
        return
    raise WrongTaskError(
        f"the model {route.name!r} {IS[task]} and does not serve {path}; "
        f"ask it through {ROUTES_OF[task]}",
        param="model",
    )
