"""The models that are served: loading, atomic reload, unloading, and what is known of those that failed.

A new version is loaded and warmed on a thread before traffic moves to it, at once and whole. The version it replaces finishes
what it holds. A load that fails leaves everything as it was, and its reason stays readable.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.base.errors import RedlineError, closest
from redline.base.log import logger
from redline.server import folders
from redline.server.ensemble import Ensemble
from redline.server.errors import Kind, ServeError, invalid, not_found, unavailable
from redline.server.program import Loader
from redline.server.served import Prepared, Served, prepare, serve
from redline.server.source import DEFAULT_BACKEND, Source, completed, read_source, unpack

Model = Served | Ensemble


@dataclass
class Entry:
    """One model: the versions that serve, the newest first in line, and the state of each version ever asked for."""

    serving: dict[int, Model] = field(default_factory=dict)
    states: dict[int, tuple[str, str]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    fingerprint: Any = None
    upload: "tempfile.TemporaryDirectory[str] | None" = None


class Repository:
    """Used on the event loop; files are read, and models loaded, on threads."""

    def __init__(self, roots: Sequence[Path], backends: Mapping[str, Loader], explicit: bool, uploads: bool = False) -> None:
        self.roots, self._backends, self._explicit, self._uploads = tuple(roots), backends, explicit, uploads
        self._entries: dict[str, Entry] = {}
        self._threads = ThreadPoolExecutor(2, "redline-load")
        self._retiring: set[asyncio.Task[None]] = set()
        self._lookup: dict[tuple[str, str], Model] = {}
        self._closing = False

    # -- looking up

    def find(self, name: str, version: str = "") -> Model:
        """The model that serves a request ("" is the highest version); raises ServeError saying why there is none."""
        model = self._lookup.get((name, version))
        return model if model is not None else self._explain(name, version)

    def _explain(self, name: str, version: str) -> Model:
        folders.check_name(name)
        entry = self._entries.get(name)
        if entry is None:
            raise not_found(f"model {name!r}", "it is not served", closest(name, self._entries))
        if version:
            number = folders.check_version(version)
            state, reason = entry.states.get(number, ("", ""))
            seen = f"version {number} is not ready" + (f": {reason}" if reason else "")
            if state in ("LOADING", "UNLOADING"):
                raise unavailable(f"model {name!r}", seen, "", "try again later")
            raise not_found(f"model {name!r}", seen, f"served: {', '.join(map(str, sorted(entry.serving))) or 'none'}")
        reasons = "; ".join(reason for _, reason in entry.states.values() if reason)
        raise unavailable(f"model {name!r}", "no version is ready" + (f": {reasons}" if reasons else ""))

    def _relist(self, name: str) -> None:
        self._lookup = {key: model for key, model in self._lookup.items() if key[0] != name}
        serving = self._entries[name].serving
        for number, model in serving.items():
            self._lookup[name, str(number)] = model
        if serving:
            self._lookup[name, ""] = serving[max(serving)]

    def serving(self) -> list[Model]:
        return [model for _, entry in sorted(self._entries.items()) for _, model in sorted(entry.serving.items())]

    def index(self, ready_only: bool) -> list[dict[str, str]]:
        """Name, version, state and reason of everything that was asked for, and the names in the repository that were not."""
        rows = []
        for name in sorted({*self._entries, *folders.model_names(self.roots)}):
            states = self._entries[name].states if name in self._entries else {}
            if not states and not ready_only:
                rows.append({"name": name})
            for number, (state, reason) in sorted(states.items()):
                if state == "READY" or not ready_only:
                    row = {"name": name, "version": str(number), "state": state}
                    rows.append({**row, "reason": reason} if reason else row)
        return rows

    # -- changing

    async def load(self, name: str, config_json: str = "", files: Mapping[str, bytes] | None = None) -> None:
        """Loads or reloads a model; raises ServeError with the reasons of the versions that failed."""
        folders.check_name(name)
        entry = self._entries.setdefault(name, Entry())
        async with entry.lock:
            self._entries[name] = entry
            try:
                upload = self._accept(name, config_json, files) if files else None
                root = Path(upload.name) / name if upload else None
                source = await self._on_thread(read_source, self.roots, name, config_json, root)
            except RedlineError as error:
                if not entry.states:
                    del self._entries[name]
                elif not entry.serving:
                    entry.states = {number: ("UNAVAILABLE", str(error)) for number in entry.states}
                logger.warning("%s", error)
                raise
            await self._load_versions(name, entry, source)
            old, entry.upload = entry.upload, upload
            if old:
                old.cleanup()

    async def _load_versions(self, name: str, entry: Entry, source: Source) -> None:
        failures = []
        loaded: dict[int, Model] = {}
        for number, folder in sorted(source.versions.items()):
            kept = entry.serving.get(number)
            entry.states[number] = ("READY" if kept else "LOADING", "loading" if kept else "")
            try:
                loaded[number] = await self._load_version(source, number, folder)
                entry.states[number] = ("READY", "")
            except Exception as error:
                reason = str(error) if isinstance(error, RedlineError) else f"{type(error).__name__}: {error}"
                logger.warning("model %r version %d does not load: %s", name, number, reason)
                entry.states[number] = ("READY", f"the newest load failed: {reason}") if kept else ("UNAVAILABLE", reason)
                failures.append(reason)
        replaced = [model for number, model in entry.serving.items() if number in loaded]
        gone = [number for number in entry.serving if number not in source.versions] if not failures or loaded else []
        replaced += [entry.serving.pop(number) for number in gone]
        for number in gone:
            entry.states[number] = ("UNAVAILABLE", "unloaded")
        entry.serving.update(loaded)
        self._relist(name)
        for model in replaced:
            self._retire(model)
        if failures:
            raise invalid(f"model {name!r}", "; ".join(failures), "", "what was served before is served still")
        logger.info("model %r serves versions %s", name, ", ".join(map(str, sorted(entry.serving))))

    async def _load_version(self, source: Source, number: int, folder: Path) -> Model:
        config = source.config
        if config.backend == "ensemble":
            return Ensemble(config, number, source.message, self.find)
        prepared = await self._on_thread(self._prepare, source, number, folder)
        return serve(config, number, completed(source.message, prepared), source.folder, prepared)

    def _prepare(self, source: Source, number: int, folder: Path) -> Prepared:
        """Loads and warms one version; on a thread."""
        name = source.config.backend or DEFAULT_BACKEND
        loader = self._backends.get(name)
        if loader is None:
            raise invalid(f"model {source.config.name!r}", f"there is no backend {name!r}", closest(name, self._backends))
        program = loader(source.config, folder, lambda text: self._progress(source.config.name, number, text))
        try:
            return prepare(source.config, source.folder, program)
        except BaseException:
            program.close()
            raise

    def _progress(self, name: str, number: int, text: str) -> None:
        """What a load is doing, for the index and the log; on a thread. Raises ServeError to end it with the server."""
        if self._closing:
            raise unavailable(f"model {name!r}", "the server is shutting down")
        if text:
            logger.info("%s", text)
            states = self._entries[name].states
            states[number] = states[number][0], text

    def _accept(self, name: str, config_json: str, files: Mapping[str, bytes]) -> "tempfile.TemporaryDirectory[str]":
        if not self._uploads:
            seen = "models in load requests are not accepted"
            raise ServeError(Kind.UNSUPPORTED, f"model {name!r}", seen, "", "start with --allow-uploads")
        return unpack(name, config_json, files)

    async def unload(self, name: str, dependents: bool = False) -> None:
        """Takes a model out of service; it finishes what it holds. With ``dependents``, an ensemble's members too."""
        folders.check_name(name)
        entry = self._entries.get(name)
        if entry is None:
            raise not_found(f"model {name!r}", "it is not served", closest(name, self._entries))
        async with entry.lock:
            models = list(entry.serving.values())
            entry.serving.clear()
            entry.states = dict.fromkeys(entry.states, ("UNAVAILABLE", "unloaded"))
            self._relist(name)
            for model in models:
                self._retire(model)
            members = {m for model in models if isinstance(model, Ensemble) for m in model.members()} if dependents else set()
        for member in sorted(members & set(self._entries)):
            await self.unload(member)

    def require_explicit(self) -> None:
        """Raises ServeError unless clients may load and unload."""
        if not self._explicit:
            remedy = "start the server with --model-control-mode explicit"
            raise unavailable("model repository", "explicit model load / unload is not allowed", "", remedy)

    def _retire(self, model: Model) -> None:
        task = asyncio.get_running_loop().create_task(model.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _on_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    # -- whole repository

    async def load_all(self, names: Sequence[str] | None = None) -> list[str]:
        """Loads the named models (None: all), ensembles last; the reasons of those that failed."""
        failures = []
        wanted = folders.model_names(self.roots) if names is None else list(names)
        for name in sorted(wanted, key=lambda n: (self._is_ensemble(n), n)):
            try:
                await self.load(name)
            except RedlineError as error:
                failures.append(str(error))
            entry = self._entries.get(name)
            if entry is not None:
                entry.fingerprint = await self._on_thread(self._fingerprint, name)
        return failures

    def _is_ensemble(self, name: str) -> bool:
        try:
            return read_source(self.roots, name).config.backend == "ensemble"
        except RedlineError:
            return False

    def _fingerprint(self, name: str) -> Any:
        try:
            return folders.fingerprint(folders.model_folder(self.roots, name))
        except RedlineError:
            return None

    async def poll(self) -> None:
        """Loads what is new or changed and unloads what is gone; failures are logged and tried again when files change."""
        names = await self._on_thread(folders.model_names, self.roots)
        for name in [n for n in self._entries if n not in names]:
            await self.unload(name)
            del self._entries[name]
        for name in sorted(names, key=lambda n: (self._is_ensemble(n), n)):
            found = await self._on_thread(self._fingerprint, name)
            entry = self._entries.get(name)
            if entry is not None and entry.fingerprint == found:
                continue
            try:
                await self.load(name)
            except RedlineError as error:
                logger.warning("%s", error)
            entry = self._entries.setdefault(name, Entry())
            entry.fingerprint = found

    async def close(self) -> None:
        """Retires every model and waits for the last answer."""
        self._closing = True
        for entry in self._entries.values():
            for model in entry.serving.values():
                self._retire(model)
            entry.serving.clear()
            if entry.upload:
                entry.upload.cleanup()
        self._lookup.clear()
        while self._retiring:
            await asyncio.gather(*self._retiring, return_exceptions=True)
        self._threads.shutdown(wait=False)
