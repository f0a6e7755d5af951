"""The sink: a mail server that keeps what it gets, shows it over HTTP, and fails on demand. For trials and tests."""
