"""`helm test`: the endpoint is ready, lists models, and answers a chat where a model is named.

Just after an install nodes still pull their images, and a gateway answers 503 at its deadline: that
is asked again for SMOKE_PATIENCE_S.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL, KEY, MODEL = (os.environ[f"SMOKE_{name}"] for name in ("URL", "KEY", "MODEL"))
ENDS_S = time.monotonic() + float(os.environ.get("SMOKE_PATIENCE_S", "270"))
UNAVAILABLE = 503


def call(path: str, body: object = None, timeout_s: float = 10) -> str:
    request = urllib.request.Request(
        URL + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return answer.read().decode()


def ask(path: str, body: object = None, timeout_s: float = 10) -> str:
    """As `call`, until it is available."""
    while True:
        try:
            return call(path, body, timeout_s)
        except urllib.error.HTTPError as exc:
            if exc.code != UNAVAILABLE or time.monotonic() > ENDS_S:
                raise
            print("not yet:", exc.read().decode(errors="replace")[:200], flush=True)
            time.sleep(1)


ask("/ready")
models = [model["id"] for model in json.loads(ask("/v1/models"))["data"]]
print("models:", ", ".join(models) or "none")
if MODEL:
    question = [{"role": "user", "content": "What is Penstock?"}]
    chat = {"model": MODEL, "messages": question, "max_tokens": 16}
    answer = json.loads(ask("/v1/chat/completions", chat, timeout_s=600))
    print("answer:", answer["choices"][0]["message"]["content"])
print("smoke: ok")
sys.exit(0)
