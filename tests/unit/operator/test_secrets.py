"""What is generated can be typed into any client."""

from sternpost_operator.secrets import make_password


def test_a_generated_password_is_never_an_option_to_a_command() -> None:
    assert all(make_password().isalnum() for _ in range(500))
