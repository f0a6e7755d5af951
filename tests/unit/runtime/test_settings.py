"""Settings come from two prefixes, and a wrong one is told in a line that can be acted upon."""

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sternpost_runtime.settings import BusSettings, CommaSeparated, ServiceSettings, load


class Example(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="STERNPOST_EXAMPLE_")

    doors: CommaSeparated = ("smtp",)
    workers: int = Field(default=4, ge=1, description="how many sessions at once, such as 4")
    key: SecretStr | None = Field(default=None, min_length=8, description="a key of eight characters or more")


class Demanding(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="STERNPOST_EXAMPLE_")

    zone: str = Field(description="the zone of this process, such as eu-1")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("STERNPOST_")]:
        monkeypatch.delenv(name)


def test_without_any_variable_the_defaults_hold() -> None:
    settings = load(Example)
    assert settings.nats_servers == ["nats://127.0.0.1:4222"]
    assert settings.release_namespace == "sternpost"
    assert settings.otlp_endpoint == ""
    assert settings.hostname


def test_a_shared_field_is_read_under_the_shared_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_HEALTH_PORT", "9001")
    assert load(Example).health_port == 9001


def test_the_services_own_prefix_overrides_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_HEALTH_PORT", "9001")
    monkeypatch.setenv("STERNPOST_EXAMPLE_HEALTH_PORT", "9002")
    assert load(Example).health_port == 9002


def test_a_services_own_field_is_not_read_under_the_shared_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_WORKERS", "99")
    assert load(Example).workers == 4


def test_a_tuple_is_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_EXAMPLE_DOORS", "smtp, http,")
    assert load(Example).doors == ("smtp", "http")


def test_a_cluster_is_several_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_NATS_URL", "nats://a:4222, tls://b:4222")
    assert load(Example).nats_servers == ["nats://a:4222", "tls://b:4222"]


def test_bus_settings_can_be_written_in_code_as_tests_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_NATS_USER", "from the environment")
    settings = BusSettings(nats_url="nats://127.0.0.1:9", nats_user="queue", nats_password=SecretStr("x"))
    assert (settings.nats_user, settings.nats_secret) == ("queue", "x")


WRONG = [
    ("STERNPOST_EXAMPLE_HEALTH_PORT", "http", ["'http' is not valid", "integer", "wanted: the TCP port"]),
    ("STERNPOST_HEALTH_PORT", "70000", ["'70000' is not valid", "65535", "(default: 8081)"]),
    ("STERNPOST_LOG_LEVEL", "loud", ["'loud'", "'debug', 'info', 'warning' or 'error'"]),
    ("STERNPOST_NATS_URL", "http://nats", ["must look like nats://host:4222"]),
    ("STERNPOST_NATS_URL", "nats://nats:port", ["'nats://nats:port' is not valid"]),
    ("STERNPOST_OTLP_ENDPOINT", "collector:4318", ["must look like http://collector:4318"]),
    ("STERNPOST_EXAMPLE_WORKERS", "0", ["'0' is not valid", "greater than or equal to 1", "such as 4"]),
    ("STERNPOST_RELEASE_NAMESPACE", "", ["at least 1 character"]),
]


@pytest.mark.parametrize(("variable", "value", "says"), WRONG)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    variable: str, value: str, says: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{variable}: ")
    for part in says:
        assert part in line


def test_every_wrong_value_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STERNPOST_LOG_LEVEL", "loud")
    monkeypatch.setenv("STERNPOST_EXAMPLE_WORKERS", "none")
    with pytest.raises(SystemExit):
        load(Example)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_missing_value_says_what_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(Demanding)
    err = capsys.readouterr().err
    assert err == "STERNPOST_EXAMPLE_ZONE: is required; wanted: the zone of this process, such as eu-1\n"


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STERNPOST_EXAMPLE_KEY", "hunter2")
    monkeypatch.setenv("STERNPOST_NATS_URL", "nats://queue:hunter2@nats:4222")
    with pytest.raises(SystemExit):
        load(Example)
    err = capsys.readouterr().err
    assert "hunter2" not in err
    assert "STERNPOST_EXAMPLE_KEY: the value is not valid" in err
    assert "'nats://...@nats:4222' is not valid: must not hold a user or password" in err


def test_a_secret_is_not_in_the_settings_own_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNPOST_NATS_PASSWORD", "hunter2")
    assert "hunter2" not in repr(load(Example))


def test_a_typing_mistake_is_told_and_does_not_stop_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STERNPOST_EXAMPLE_WORKRES", "8")
    assert load(Example).workers == 4
    assert capsys.readouterr().err == (
        "STERNPOST_EXAMPLE_WORKRES: is not a setting and is ignored; did you mean STERNPOST_EXAMPLE_WORKERS?\n"
    )


def test_the_variables_that_kubernetes_adds_for_a_service_are_not_called_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STERNPOST_EXAMPLE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("STERNPOST_EXAMPLE_PORT_25_TCP", "tcp://10.0.0.1:25")
    load(Example)
    assert capsys.readouterr().err == ""


def test_settings_do_not_change_after_the_start() -> None:
    settings = load(Example)
    with pytest.raises(ValueError, match="frozen"):
        settings.workers = 5
