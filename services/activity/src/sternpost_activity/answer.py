"""Answering questions: from the tables, else from the spool, else from the tables once they have caught up.

A mail leaves the spool only after its events are stored, and a stored event is in the tables as soon as the position
has come to its sequence. So whoever looks in this order misses nothing that was accepted. What cannot be found out
(database or broker down) is not answered at all, because "not known" would be a lie; the asker's deadline tells its
client to come again.
"""

from typing import Protocol

from sternpost_activity import telemetry
from sternpost_activity.lag import Progress
from sternpost_activity.search import Search
from sternpost_activity.spool_lookup import SpoolLookup
from sternpost_mail.ids import is_id
from sternpost_mail.states import State
from sternpost_mail.timeline import ListAnswer, ListQuestion, MessageAnswer, MessageView
from sternpost_runtime.codec import (
    decode_list_question,
    decode_message_question,
    encode_list_answer,
    encode_message_answer,
)
from sternpost_runtime.subjects import ACTIVITY_LIST, ACTIVITY_MESSAGE, STREAM_EVENTS

_STATES = frozenset(state.value for state in State)


class Sequences(Protocol):
    """The part of the bus that is needed."""

    async def last_seq(self, stream: str) -> int:
        """The sequence of the newest record."""


class Answers:
    """The handlers of ACTIVITY_MESSAGE and ACTIVITY_LIST. `wait` is in seconds."""

    def __init__(
        self, search: Search, spool: SpoolLookup, sequences: Sequences, progress: Progress, *, wait: float
    ) -> None:
        self._search = search
        self._spool = spool
        self._sequences = sequences
        self._progress = progress
        self._wait = wait

    async def message(self, payload: bytes) -> bytes:
        """One message. Raises CodecError, DatabaseDown, BusError: the question then stays unanswered."""
        question = decode_message_question(payload)
        return encode_message_answer(MessageAnswer(await self.find(question.id, question.tenant)))

    async def page(self, payload: bytes) -> bytes:
        """A page of messages. Raises CodecError, DatabaseDown."""
        question: ListQuestion = decode_list_question(payload)
        if question.state and question.state not in _STATES:
            answer = ListAnswer(())
        else:
            answer = await self._search.page(question)
        telemetry.question_answered(ACTIVITY_LIST, "sql")
        return encode_list_answer(answer)

    async def find(self, mail_id: str, tenant: str) -> MessageView | None:
        """One message of a tenant (empty: of any), wherever it is known. The way is the same for a mail of another
        tenant as for one that never was, so that neither the answer nor its time tells them apart."""
        if not is_id(mail_id):
            return None
        view = await self._search.message(mail_id, tenant)
        source = "sql"
        if view is None:
            view = await self._spool.find(mail_id, tenant)
            source = "spool"
        if view is None:
            await self._progress.reached(await self._sequences.last_seq(STREAM_EVENTS), self._wait)
            view = await self._search.message(mail_id, tenant)
            source = "sql_after_wait"
        telemetry.question_answered(ACTIVITY_MESSAGE, source if view else "nobody")
        return view
