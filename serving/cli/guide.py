"""Brings up the built-in model at the end of a platform's start: deploys it once, and wakes it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import models
from models.errors import ModelNotFoundError, PenstockError, UnavailableError, UnreachableError
from models.manifest import Manifest, load_manifest
from serving.cli.blueprint import Blueprint
from serving.cli.client import AdminClient
from serving.cli.insider import Insider
from serving.protocol import ModelState

MANIFEST = Path(models.__file__).parent / "catalog" / "guide.yaml"
WAKE_TIMEOUT_S = 120.0
WAKE_INTERVAL_S = 0.25
MISSING_AFTER_S = 6.0


class Until(Protocol):
    """Looks after the parts until something is true, and raises if that takes too long."""

    def __call__(
        self, done: Callable[[], bool], timeout_s: float, what: str, interval_s: float
    ) -> None: ...


def builtin_manifest() -> Manifest:
    """The manifest of the built-in model."""
    return load_manifest(MANIFEST)


def bring_up(
    plan: Blueprint, admin_key: str | None, until: Until, say: Callable[[str], None]
) -> tuple[str | None, PenstockError | None]:
    """Deploys the built-in model where it is missing, and holds demand up until it is ready.

    Returns its name, if it is deployed, and its trouble, if it has some: a platform whose
    built-in model does not start serves other models all the same.
    """
    manifest = builtin_manifest()
    insider = Insider(plan.controller_url, plan.internal_token)
    admin = AdminClient(plan.controller_url, admin_key) if admin_key else None
    try:
        if admin and manifest.name not in [model.name for model in admin.models()]:
            admin.apply(manifest)
        _wake(insider, admin, manifest.name, until, say)
    except ModelNotFoundError:
        say(f"the built-in model is not deployed: `penstock deploy {manifest.source}`")
        return None, None
    except PenstockError as exc:
        return manifest.name, exc
    finally:
        insider.close()
        if admin:
            admin.close()
    return manifest.name, None


def _wake(
    insider: Insider,
    admin: AdminClient | None,
    name: str,
    until: Until,
    say: Callable[[str], None],
) -> None:
    """Holds demand for a model up until it is ready.

    Raises:
        ModelNotFoundError: If it is not deployed.
        UnavailableError: If it fails or is not ready in time.
    """
    began_s = time.monotonic()

    def is_ready() -> bool:
        try:
            insider.wake(name)
            route = insider.route(name)
        except UnreachableError:
            return False  # the controller is being restarted
        if route is None:
            # A controller that just started publishes nothing for its first seconds.
            if time.monotonic() - began_s > MISSING_AFTER_S:
                raise ModelNotFoundError(f"model {name} is not deployed")
            return False
        if route.state is ModelState.FAILED:
            # The route's reason is for tenants, the admin API's for operators.
            reason = admin.model(name).reason if admin else route.reason
            raise UnavailableError(
                f"model {name} failed: {reason}",
                hint=f"`penstock logs {name}` and `penstock get events` tell more",
            )
        return bool(route.endpoints)

    until(is_ready, WAKE_TIMEOUT_S, f"model {name} is not ready", WAKE_INTERVAL_S)
    with suppress(UnreachableError):
        insider.rest()
    say(f"model {name} is ready ({time.monotonic() - began_s:.1f} s)")
