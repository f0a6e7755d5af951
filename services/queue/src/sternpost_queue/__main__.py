"""`python -m sternpost_queue`: settings, app, run."""

from sternpost_queue.app import run as run_app
from sternpost_queue.settings import Settings
from sternpost_runtime.lifecycle import Stop, run
from sternpost_runtime.settings import load


def main() -> None:
    """Run the queue service until a signal ends it."""
    settings = load(Settings)

    async def serve(stop: Stop) -> None:
        await run_app(settings, stop)

    run(serve, service="queue", settings=settings)


if __name__ == "__main__":
    main()
