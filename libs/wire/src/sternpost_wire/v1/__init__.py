"""Generated from proto/sternpost_wire/v1 by `make proto`. Do not edit."""
