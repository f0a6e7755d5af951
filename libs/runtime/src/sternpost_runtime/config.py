"""Follows the CONFIG bucket and keeps the last good configuration, with or without broker and operator (promise P7)."""

import asyncio
from collections.abc import Callable

import structlog

from sternpost_mail.config import EMPTY_CONFIG, Config, Generation, Resource, build_config
from sternpost_runtime.bus import Bus
from sternpost_runtime.codec import CodecError, decode_config_entry
from sternpost_runtime.subjects import BUCKET_CONFIG

log = structlog.get_logger()

GENERATION_KEY = "generation"
"""Written last by the compiler: what stands beside it is complete."""


class ConfigWatch:
    """The configuration as of now. `config` is never None: before anything was heard it is EMPTY_CONFIG."""

    def __init__(self, bus: Bus, release_namespace: str) -> None:
        self._bus = bus
        self._release_namespace = release_namespace
        self._resources: dict[str, Resource] = {}
        self._generation = Generation(0, 0)
        self._callbacks: list[Callable[[Config], None]] = []
        self._dirty = False
        self.config: Config = EMPTY_CONFIG
        self.ready = asyncio.Event()
        """Set when a complete generation was seen."""

    def on_change(self, callback: Callable[[Config], None]) -> None:
        """Call with each new configuration, and at once with the present one when there is one."""
        self._callbacks.append(callback)
        if self.config.is_complete:
            callback(self.config)

    async def start(self) -> None:
        """Begin to follow the bucket."""
        await self._bus.bucket(BUCKET_CONFIG).watch(self._heard)

    def _heard(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._resources.pop(key, None)
        else:
            try:
                entry = decode_config_entry(value)
            except CodecError as error:
                log.error("config_entry_unreadable", key=key, error=str(error))  # the last good one stays
                return
            if isinstance(entry, Generation):
                self._generation = entry
            else:
                self._resources[key] = entry
        if not self._dirty:  # one rebuild per burst of changes
            self._dirty = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._dirty = False
        if self._generation.number == 0 or len(self._resources) < self._generation.resources:
            return  # a partial read: keep the last good one
        self.config = build_config(self._resources.values(), self._generation.number, self._release_namespace)
        self.ready.set()
        for callback in self._callbacks:
            callback(self.config)
