"""Ray's dashboard as far as pools need it: the Serve REST of FACTS, in memory."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse


class FakeRay:
    """Applications by name; a deployment appears with the first look after its PUT."""

    def __init__(self) -> None:
        self.token = "ray-token"
        self.away = False
        self.applications: dict[str, dict[str, Any]] = {}
        self.puts: list[dict[str, Any]] = []
        self.scales: list[tuple[str, str, int]] = []
        self.app = FastAPI()
        self.app.middleware("http")(self._guard)
        self.app.get("/api/serve/applications/")(self._get)
        self.app.put("/api/serve/applications/")(self._put)
        self.app.post("/api/v1/applications/{app}/deployments/{deployment}/scale")(self._scale)

    async def _guard(self, request: Request, call_next: Any) -> Response:
        if self.away:
            return Response("the GCS may be down", 503)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Response("Unauthorized", 401)
        response: Response = await call_next(request)
        return response

    async def _get(self) -> JSONResponse:
        answer = {"applications": dict(self.applications), "proxy_location": "Disabled"}
        response = JSONResponse(answer)
        for app in self.applications.values():
            if app["status"] == "DEPLOYING":
                app["status"] = "RUNNING"
                for deployment in app["deployed_app_config"]["deployments"]:
                    app["deployments"][deployment["name"]] = {
                        "target_num_replicas": deployment["num_replicas"]
                    }
        return response

    async def _put(self, request: Request) -> Response:
        body = await request.json()
        self.puts.append(body)
        kept = {}
        for config in body["applications"]:
            known = self.applications.get(config["name"])
            if known is not None and known["deployed_app_config"] == config:
                kept[config["name"]] = known
                continue
            kept[config["name"]] = {
                "status": "DEPLOYING",
                "message": "",
                "deployed_app_config": config,
                "deployments": {},
            }
        self.applications = kept
        return Response()

    async def _scale(self, app: str, deployment: str, request: Request) -> JSONResponse:
        if deployment not in self.applications.get(app, {}).get("deployments", {}):
            return JSONResponse({"error": "Application or Deployment not found"}, 404)
        target = (await request.json())["target_num_replicas"]
        self.applications[app]["deployments"][deployment]["target_num_replicas"] = target
        self.scales.append((app, deployment, target))
        return JSONResponse({"message": "Scaling request received."})
