"""`helm test`: the endpoint is ready, lists models, and answers a chat where a model is named."""

import json
import os
import sys
import urllib.request

URL, KEY, MODEL = (os.environ[f"SMOKE_{name}"] for name in ("URL", "KEY", "MODEL"))


def call(path: str, body: object = None, timeout_s: float = 10) -> str:
    request = urllib.request.Request(
        URL + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return answer.read().decode()


call("/ready")
models = [model["id"] for model in json.loads(call("/v1/models"))["data"]]
print("models:", ", ".join(models) or "none")
if MODEL:
    question = [{"role": "user", "content": "What is Penstock?"}]
    chat = {"model": MODEL, "messages": question, "max_tokens": 16}
    answer = json.loads(call("/v1/chat/completions", chat, timeout_s=600))
    print("answer:", answer["choices"][0]["message"]["content"])
print("smoke: ok")
sys.exit(0)
