"""`python -m sternpost_ingress`: settings, app, run."""

from functools import partial

from sternpost_ingress.app import main
from sternpost_ingress.settings import Settings
from sternpost_runtime.lifecycle import run
from sternpost_runtime.settings import load

if __name__ == "__main__":
    settings = load(Settings)
    run(partial(main, settings), service="ingress", settings=settings, grace=settings.drain_seconds + 5)
