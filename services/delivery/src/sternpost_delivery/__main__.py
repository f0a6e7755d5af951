"""`python -m sternpost_delivery`: settings, app, run."""

from sternpost_delivery.app import run as run_app
from sternpost_delivery.settings import Settings
from sternpost_runtime.lifecycle import Stop, run
from sternpost_runtime.settings import load


def main() -> None:
    """Run the delivery service until a signal ends it."""
    settings = load(Settings)

    async def serve(stop: Stop) -> None:
        await run_app(settings, stop)

    run(serve, service="delivery", settings=settings)


if __name__ == "__main__":
    main()
