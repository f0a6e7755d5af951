"""Postfix as an experienced administrator would run it as a relay, in an instance of its own.

Own configuration, queue and data directories, own port, loopback only: a Postfix that already runs on the machine is
neither used nor touched. Everything not written in `MAIN_CF` is Postfix's default.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template

from bench.load import LoadError, free_port, wait_for_port
from bench.system import Running, StartError

MAIN_CF = Template("""\
# Postfix's own rules of this century rather than its backward-compatible ones (Debian's package sets 3.6).
compatibility_level = 3.6

# An instance of its own: nothing shared with the machine's Postfix.
queue_directory = $work/queue
data_directory = $work/data
multi_instance_name = postfix-bench
syslog_name = postfix-bench
inet_interfaces = 127.0.0.1
inet_protocols = ipv4

# The log goes to a file through postlogd: bare machines have no syslog daemon. postlogd counts as part of Postfix, as
# Sternpost's event store counts as part of Sternpost.
maillog_file = $work/log/mail.log
maillog_file_prefixes = $work

# A pure relay: no local delivery and no alias files, every mail goes to the sink (brackets: no MX lookup).
myhostname = postfix.bench.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
relayhost = [127.0.0.1]:$sink_port
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination

# As in Debian's package: no new-mail notification for local users.
biff = no

# Do not slow the receiving side down when it is faster than the sending side (default 1s). The pause exists to protect
# a busy machine's disk; here it would only cost Postfix throughput, so it is off in its favour.
in_flow_delay = 0

$extra
""")

MASTER_CF = Template("""\
# Debian's services without those that a relay never uses, and without chroot (as upstream ships it). Process limits are
# the defaults (100 of each). service type private unpriv chroot wakeup maxproc command
127.0.0.1:$port inet n - n - - smtpd
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
""")

DURABLE = (
    "Postfix's default, which no setting turns off: cleanup(8) calls fsync on the queue file before smtpd answers 250"
)


class Postfix:
    """The `System` that Sternpost is measured beside."""

    name = "postfix"

    def __init__(self, extra: str = "") -> None:
        self._extra = extra
        """More lines for main.cf, to try what a setting does."""

    def prepare(self) -> None:
        """Check that Postfix is there and that we may start it; as root on a Debian system install it if not."""
        if os.geteuid() != 0:
            raise StartError(
                "Postfix's master must be started by root; run as root, or measure with --systems sternpost"
            )
        if _postfix() is None:
            self._install()
        if _postfix() is None:
            raise StartError("Postfix is missing: apt-get install postfix")

    def _install(self) -> None:
        if shutil.which("apt-get") is None:
            raise StartError("Postfix is missing and there is no apt-get: install Postfix 3.7 or newer")
        # The package asks a question, and would start the machine's own instance, which the benchmark does not want.
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "postfix"]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise StartError(f"{' '.join(command)} failed: {done.stderr[-300:].strip()}")

    def version(self) -> str:
        """Such as `Postfix 3.7.11`."""
        done = subprocess.run(["postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=False)
        return f"Postfix {done.stdout.strip()}"

    @contextlib.contextmanager
    def running(self, work: Path, sink_port: int) -> Iterator[Running]:
        """An instance with an empty queue. Raises StartError."""
        port = free_port()
        etc = work / "etc"
        for part in ("etc", "queue", "data", "log"):
            (work / part).mkdir(parents=True)
        shutil.chown(work / "data", "postfix")
        values = {"work": str(work), "sink_port": str(sink_port), "port": str(port), "extra": self._extra}
        (etc / "main.cf").write_text(MAIN_CF.substitute(values).rstrip() + "\n")
        (etc / "master.cf").write_text(MASTER_CF.substitute(values))
        command = [_postfix() or "postfix", "-c", str(etc)]
        started = subprocess.run([*command, "start"], capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise StartError(f"postfix start: {(started.stderr + started.stdout)[-600:].strip()} {_log(work)}")
        try:
            try:
                wait_for_port(port)
            except LoadError as error:
                raise StartError(f"Postfix: {error}; {_log(work)}") from error
            yield Running(port, int((work / "queue/pid/master.pid").read_text()), DURABLE, {}, lambda: _trouble(work))
        finally:
            subprocess.run([*command, "stop"], capture_output=True, check=False)


def _postfix() -> str | None:
    return shutil.which("postfix") or shutil.which("postfix", path="/usr/sbin:/usr/local/sbin")


def _trouble(work: Path) -> str:
    """What makes a run worthless: mail that had to be tried again, or a process that died."""
    log = (work / "log/mail.log").read_text(errors="replace")
    signs = ("status=deferred", "status=bounced", "fatal:", "panic:", "throttling")
    return next((line for line in log.splitlines() if any(sign in line for sign in signs)), "")


def _log(work: Path) -> str:
    """The last lines of its log, for an error message."""
    with contextlib.suppress(OSError):
        return (work / "log/mail.log").read_text()[-600:]
    return ""
