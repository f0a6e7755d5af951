"""The language of Sternpost: frozen values and pure decisions. No I/O, no clock, no protobuf, no NATS."""
