"""`python -m sternpost_auth`: settings, app, run."""

from functools import partial

from sternpost_auth.app import main
from sternpost_auth.settings import Settings
from sternpost_runtime.lifecycle import run
from sternpost_runtime.settings import load

if __name__ == "__main__":
    settings = load(Settings)
    run(partial(main, settings), service="auth", settings=settings)
