"""What a deploy looks at before it becomes a revision: the source, the policy, whether it can fit.

Asks the source over the network, once for each deploy; the registry itself never does.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from models import sources
from models.architectures import check_architecture
from models.errors import ForbiddenError, ManifestError, SourceError, UnavailableError
from models.fit import check_fit
from models.manifest import Manifest
from models.model_folder import check_folder
from models.pins import is_pinned
from models.profile import settings_of, with_profile
from models.remotes.listing import PlaceAwayError, is_pickle
from models.sources import Access, Inspection
from models.tasks import Task, task_of
from serving.settings import ControllerSettings, named_secrets

PATIENCE_S = 25.0
"""Less than a client's patience with the admin API."""


class NotAllowedError(ForbiddenError, ManifestError):
    """A manifest that wants what this platform's operator does not allow."""

    code = "not_allowed"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A manifest that may become a revision."""

    manifest: Manifest
    """Its source is pinned, where its kind can be."""
    warnings: tuple[str, ...] = ()


class Intake:
    """Looks at manifests.

    Args:
        settings: Of the controller.
        machine_gib: Memory of the machine that has the cpu pool.
    """

    def __init__(self, settings: ControllerSettings, machine_gib: float) -> None:
        self._settings = settings
        self._secrets = named_secrets(settings.secrets_dir)
        self._machine_gib = machine_gib

    async def admit(self, manifest: Manifest) -> Admitted:
        """Pins a manifest's source, and refuses what cannot work.

        Raises:
            NotAllowedError: If the platform does not allow what it wants.
            SourceError: If the source has not what is asked for, may not be read, or is no model.
            DoesNotFitError: If it cannot fit; says by how much.
            UnavailableError: If the source does not answer, and is not pinned yet.
        """
        self.check_policy(manifest)
        for endpoint in manifest.endpoints:
            self._secrets.read(endpoint.token)
        if manifest.endpoints or not self._settings.inspect_sources:
            return Admitted(manifest)
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.to_thread(self._inspect, manifest)
        except (PlaceAwayError, TimeoutError) as exc:
            if is_pinned(manifest.source):
                return Admitted(manifest, (f"the source was not looked at: {exc or 'no answer'}",))
            if isinstance(exc, TimeoutError):
                raise UnavailableError(
                    f"{manifest.source} does not answer in time",
                    param="source",
                    hint="check the network of the controller, or name a commit",
                ) from exc
            raise
        warnings = self._look(manifest, found)
        update: dict[str, object] = {"source": found.source}
        if manifest.task is None and (task := self._task(manifest, found)) is not None:
            update["task"] = task
        return Admitted(manifest.model_copy(update=update), warnings)

    def access(self, manifest: Manifest) -> Access:
        """How the manifest's sources are read."""
        return manifest.weights.access(self._secrets, code=manifest.engine.trust_remote_code)

    def _task(self, manifest: Manifest, found: Inspection) -> Task | None:
        if found.config is None or self._runs_anything(manifest):
            return None
        files = () if found.listing is None else [file.path for file in found.listing.files]
        return task_of(found.config, files, manifest.engine.args)

    def check_policy(self, manifest: Manifest) -> None:
        """Refuses what only the platform's operator may allow.

        Raises:
            NotAllowedError: Naming the field, and the setting that would allow it.
        """
        settings, weights = self._settings, manifest.weights
        asked = (
            (weights.allow_pickle, settings.allow_pickle, "weights.allow_pickle", "ALLOW_PICKLE"),
            (
                manifest.engine.trust_remote_code,
                settings.allow_remote_code,
                "engine.trust_remote_code",
                "ALLOW_REMOTE_CODE",
            ),
        )
        for wanted, allowed, field, variable in asked:
            if wanted and not allowed:
                raise NotAllowedError(
                    f"{field} is not allowed on this platform",
                    param=field,
                    hint=f"its operator can allow it with PENSTOCK_{variable}=true",
                )
        archive = manifest.source.startswith("https://")
        if archive and settings.require_archive_sha256 and weights.sha256 is None:
            raise NotAllowedError(
                "an archive needs its SHA-256 on this platform",
                param="weights.sha256",
                hint="`sha256sum` prints it",
            )

    def _inspect(self, manifest: Manifest) -> Inspection:
        return sources.inspect(manifest.source, self.access(manifest))

    def _look(self, manifest: Manifest, found: Inspection) -> tuple[str, ...]:
        """What is worth a word of a source that was reached.

        Raises:
            SourceError, DoesNotFitError: If it cannot be served.
        """
        warnings: list[str] = []
        if manifest.profile is not None and not settings_of(manifest):
            where = manifest.resources.pool
            warnings.append(f"profile: {manifest.profile} says nothing of this model on {where}")
        if manifest.source.startswith("file://"):
            # The folder may be another one on the hosts, so that this is no reason to refuse.
            folder = Path(manifest.source.removeprefix("file://"))
            try:
                check_folder(folder, pickle=manifest.weights.allow_pickle)
            except SourceError as exc:
                return (f"as seen from the controller: {exc}",)
        elif found.listing is not None and not found.listing.packed:
            names = [file.path for file in found.listing.files]
            if not any(name.endswith(".safetensors") or is_pickle(name) for name in names):
                raise SourceError(
                    f"{manifest.source} has no *.safetensors weights",
                    param="source",
                    hint="pickled weights are not loaded; convert them to safetensors, or set "
                    "weights.allow_pickle where the platform allows it",
                )
        if found.config is not None and not self._runs_anything(manifest):
            check_architecture(found.config)
        tuned = with_profile(manifest)
        warnings += check_fit(tuned, found.config, found.weight_bytes, self._machine_gib)
        return tuple(warnings)

    def _runs_anything(self, manifest: Manifest) -> bool:
        """Whether the model need not be one of vLLM's own."""
        own_code = manifest.engine.trust_remote_code
        return own_code or "transformers" in str(manifest.engine.args.get("model_impl"))
