"""What EVENTS already says of a record that came a second time: nobody gets a mail twice and no end is told twice.

`remember` is pure; `Recovery` reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sternpost_mail.events import Event, EventKind, OutcomeKind, Result
from sternpost_mail.states import FINAL, State
from sternpost_runtime.bus import Bus
from sternpost_runtime.codec import CodecError, decode_event_batch
from sternpost_runtime.subjects import STREAM_EVENTS, event_subject

SHARED_SCAN = 20
"""From this many records on, one scan of all buckets is cheaper than one read each."""


@dataclass(slots=True)
class Known:
    """What is known of one mail's recipients, by index."""

    finished: set[int] = field(default_factory=set)
    """In a final state, or moved to DEFER or HELD by a decision that was recorded: not ours any more."""
    refused: dict[int, str] = field(default_factory=dict)
    """Refused for good by the remote, with its reply, but the report and the decision are still to be written."""
    attempted: set[int] = field(default_factory=set)
    """Failed for now, and nothing tells whether the retry was already stored."""


def remember(events: Iterable[Event], attempts: dict[str, int], stored_ms: int = 0) -> dict[str, Known]:
    """What the events say of the mails in `attempts` (mail id to the attempts that the record in hand knows of).

    Deferrals that happened before the record in hand was written are its own past, not its future: an event of an
    attempt that the record already counts is skipped, except where it is final. Parking and schedules count no attempt,
    so there the time tells: the broker never returns a record before its moment, hence a moment later than `stored_ms`
    (when the record in hand was stored, 0 where none is in hand) belongs to a later record.
    """
    found: dict[str, Known] = {mail: Known() for mail in attempts}
    for event in sorted(events, key=lambda e: e.at_ms):
        known = found.get(event.mail_id)
        if known is None:
            continue
        newer = event.attempt > attempts[event.mail_id]
        for result in event.results:
            index = result.recipient
            if result.state in FINAL:
                known.finished.add(index)
            elif event.kind is EventKind.ATTEMPT and newer:
                if result.outcome is OutcomeKind.PERMANENT:
                    known.refused[index] = result.reply
                else:
                    known.attempted.add(index)
            elif event.kind is EventKind.DECISION and _is_elsewhere(event, result, newer, stored_ms):
                known.finished.add(index)
    for known in found.values():
        known.attempted -= known.finished
        for index in known.finished & known.refused.keys():
            del known.refused[index]
    return found


_MOVED = frozenset({State.DEFERRED, State.SCHEDULED, State.QUEUED})


def _is_elsewhere(event: Event, result: Result, newer: bool, stored_ms: int) -> bool:
    """Whether a decision says that the recipient went from the record in hand to another."""
    if result.state is State.HELD:
        return event.at_ms >= stored_ms  # a record stored after that is the held one, released
    return result.state in _MOVED and (newer or (stored_ms > 0 and result.next_attempt_ms > stored_ms))


class Recovery:
    """Reads EVENTS for records in doubt."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def events_of(self, records: set[str], since_ms: int) -> list[Event]:
        """Every event of these spool records since a moment. Raises BusError where EVENTS cannot be read."""
        found: list[Event] = []
        subjects = {event_subject(record) for record in records} if len(records) <= SHARED_SCAN else {"event.>"}
        for subject in subjects:
            async for message in self._bus.read_from(STREAM_EVENTS, subject, since_ms - 1000):
                try:
                    batch = decode_event_batch(message.payload)
                except CodecError:
                    continue  # activity counts and reports it
                found += [event for event in batch.events if event.record_id in records]
        return found
