"""`python -m sternpost_activity`: settings, app, run."""

from sternpost_activity.app import run_app
from sternpost_activity.settings import Settings
from sternpost_runtime.lifecycle import run
from sternpost_runtime.settings import load


def main() -> None:
    """Read the settings and run until a signal."""
    settings = load(Settings)
    run(lambda stop: run_app(settings, stop), service="activity", settings=settings)


if __name__ == "__main__":
    main()
