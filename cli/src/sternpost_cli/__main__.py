"""The command line: verbs and options only. What a verb needs is imported when it runs, so that `--help` is quick."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sternpost_cli.output import EXIT_USAGE, Output, fail

if TYPE_CHECKING:
    from sternpost_cli.api import Target

app = typer.Typer(
    name="sternpost",
    help="An email platform: run it, hand it mail, ask where mail is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
queue_app = typer.Typer(help="What waits, one message, taking one back.", no_args_is_help=True)
app.add_typer(queue_app, name="queue")

DataOption = Annotated[Path, typer.Option("--data", envvar="STERNPOST_DATA", help="Directory of the platform's data.")]
ManifestsOption = Annotated[Path, typer.Option("--manifests", "-f", help="Directory of manifests (*.yaml).")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Form of the result.")]
UrlOption = Annotated[str, typer.Option("--url", envvar="STERNPOST_URL", help="HTTP API. Default: quickstart.env.")]
KeyOption = Annotated[
    str, typer.Option("--api-key", envvar="STERNPOST_API_KEY", help="API key. Default: quickstart.env.")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Message id, as the 250 or 202 told it.")]

DATA = Path(".sternpost")


@app.command()
def up(
    manifests: ManifestsOption,
    data: DataOption = DATA,
    sink: Annotated[bool, typer.Option("--sink/--no-sink", help="Start the sink too.")] = True,
) -> None:
    """Run the whole platform on this machine until Ctrl-C."""
    from sternpost_cli.up import run_up

    if not manifests.is_dir():
        fail(f"{manifests} is not a directory of manifests", EXIT_USAGE)
    raise typer.Exit(run_up(manifests, data, with_sink=sink))


@app.command()
def apply(
    manifests: ManifestsOption,
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
    allow_removal: Annotated[
        bool, typer.Option("--allow-removal", help="Also when more than a fifth of the resources would go.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the manifests, publish nothing.")] = False,
) -> None:
    """Compile manifests into the running platform."""
    from sternpost_cli.apply import run_apply

    run_apply(manifests, data, output, allow_removal=allow_removal, dry_run=dry_run)


@app.command()
def sink(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    smtp_port: Annotated[int, typer.Option(envvar="STERNPOST_SINK_SMTP_PORT", help="SMTP port.")] = 2526,
    http_port: Annotated[int, typer.Option(envvar="STERNPOST_SINK_HTTP_PORT", help="HTTP port.")] = 8026,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file; offers STARTTLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the key, where it is not in the other.")] = None,
) -> None:
    """Run a mail server that keeps what it gets, lists it over HTTP, and fails on demand."""
    import asyncio

    from sternpost_cli.sink.serve import serve

    try:
        asyncio.run(serve(host, smtp_port, http_port, certificate=tls_certificate, key=tls_key))
    except OSError as error:
        fail(f"the sink cannot start: {error}")


@app.command()
def send(
    sender: Annotated[str, typer.Option("--from", help="Sender, of a domain that is yours.")],
    to: Annotated[list[str], typer.Option("--to", help="Recipient; repeat for more.")],
    subject: Annotated[str, typer.Option(help="Subject.")] = "",
    text: Annotated[str, typer.Option(help="Body; - reads it from stdin.")] = "",
    raw: Annotated[Path | None, typer.Option(help="A finished RFC 5322 message instead; - is stdin.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag; repeat for more.")] = None,
    send_at: Annotated[str, typer.Option(help="Not before this time, such as 2030-01-31T08:00:00Z.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="The same key sends once.")] = "",
    url: UrlOption = "",
    api_key: KeyOption = "",
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send one message through the HTTP API."""
    from sternpost_cli.send import send_message, send_raw

    target = _target(url, api_key, data)
    if raw is not None:
        if subject or text or tag or send_at:
            fail("--raw is the whole message: --subject, --text, --tag and --send-at do not go with it", EXIT_USAGE)
        send_raw(target, output, file=raw, sender=sender, to=to, idempotency_key=idempotency_key)
        return
    send_message(
        target,
        output,
        sender=sender,
        to=to,
        subject=subject,
        text=text,
        tags=tag or [],
        send_at=send_at,
        idempotency_key=idempotency_key,
    )


@queue_app.command("ls")
def queue_ls(
    state: Annotated[str, typer.Option(help="Only this state, such as deferred.")] = "",
    sender: Annotated[str, typer.Option("--from", help="Only this sender.")] = "",
    recipient: Annotated[str, typer.Option("--to", help="Only this recipient.")] = "",
    tag: Annotated[str, typer.Option(help="Only this tag.")] = "",
    before: Annotated[str, typer.Option(help="Continue a list: the id that it ended with.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    url: UrlOption = "",
    api_key: KeyOption = "",
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
) -> None:
    """List messages, newest first."""
    from sternpost_cli.queue import list_messages

    filters = {"state": state, "from": sender, "to": recipient, "tag": tag, "before": before}
    list_messages(_target(url, api_key, data), output, filters=filters, limit=limit)


@queue_app.command("show")
def queue_show(
    identifier: IdArgument,
    url: UrlOption = "",
    api_key: KeyOption = "",
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one message and its recipients."""
    from sternpost_cli.queue import show_message

    show_message(_target(url, api_key, data), output, _checked(identifier))


@queue_app.command("cancel")
def queue_cancel(
    identifier: IdArgument,
    url: UrlOption = "",
    api_key: KeyOption = "",
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take a message back, as far as it was not sent yet."""
    from sternpost_cli.queue import cancel_message

    cancel_message(_target(url, api_key, data), output, _checked(identifier))


@app.command()
def trace(
    identifier: IdArgument,
    url: UrlOption = "",
    api_key: KeyOption = "",
    data: DataOption = DATA,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the timeline of one message."""
    from sternpost_cli.trace import trace_message

    trace_message(_target(url, api_key, data), output, _checked(identifier))


def _target(url: str, api_key: str, data: Path) -> "Target":
    from sternpost_cli.api import find_target

    return find_target(url, api_key, data)


def _checked(identifier: str) -> str:
    from sternpost_mail.ids import is_id

    if not is_id(identifier):
        fail(f"{identifier!r} is not a message id (26 characters, as the 250 or 202 told it)", EXIT_USAGE)
    return identifier


def main() -> None:
    """The console script `sternpost`."""
    app(prog_name="sternpost")


if __name__ == "__main__":
    main()
