"""The composition root of the queue service: wired by hand, top to bottom."""

import asyncio

import structlog

from sternpost_queue.active import ActiveSet
from sternpost_queue.consume import Consumer
from sternpost_queue.control import Control
from sternpost_queue.dispatch import Dispatcher
from sternpost_queue.journal import Journal
from sternpost_queue.recover import Recovery
from sternpost_queue.settings import Settings
from sternpost_queue.settle import Settler
from sternpost_runtime.bus import Bus
from sternpost_runtime.config import ConfigWatch
from sternpost_runtime.health import Health
from sternpost_runtime.lifecycle import Stop, spawn
from sternpost_runtime.subjects import LANES, Service

log = structlog.get_logger()


async def run(settings: Settings, stop: Stop) -> None:
    """Serve until told to stop, then let running sessions end."""
    health = Health()
    await health.serve(settings.health_host, settings.health_port)
    bus = await Bus.connect(settings, Service.QUEUE)
    config = ConfigWatch(bus, settings.release_namespace)
    journal = Journal(bus)
    control = Control(bus, journal)
    recovery = Recovery(bus)
    active = ActiveSet(settings.active_limits)
    consumer = Consumer(bus, config, active, control, recovery, journal, settings)
    settler = Settler(journal, bus, settings.hostname, consumer.mail_finished)
    dispatcher = Dispatcher(bus, active, settler, control, recovery, settings)
    consumer.wire(settler, dispatcher)

    health.add("broker", lambda: bus.connected)
    health.add("configuration", config.ready.is_set)
    health.add("workers", lambda: dispatcher.workers > 0)

    await config.start()
    await control.start()
    await control.ready.wait()
    await dispatcher.start()
    loops = [
        dispatcher.run_leases(),
        dispatcher.run_ticks(),
        consumer.run_beats(),
        consumer.run_levels(),
        consumer.run_due(),
        *(consumer.run_lane(lane) for lane in LANES),
    ]
    tasks = [spawn(loop, name) for loop, name in zip(loops, _names(), strict=True)]
    log.info("queue_ready", queue=dispatcher.id)
    await stop.wait()

    for task in tasks[3:]:  # no more records; leases and ticks go on while sessions end
        task.cancel()
    await dispatcher.drain(settings.drain_seconds)
    await consumer.drain(2.0)
    await journal.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bus.close()
    await health.close()


def _names() -> list[str]:
    return ["leases", "ticks", "beats", "levels", "due", *(f"lane-{lane}" for lane in LANES)]
