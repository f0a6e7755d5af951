"""Taking a mail back: the question to the queue service and its answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel what is still open of one mail. `tenant` empty means any (the administrator's own tools only)."""

    mail_id: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Whether the mark was set; recipients that are already finished stay as they are. `reason` says why not."""

    marked: bool
    reason: str = ""
