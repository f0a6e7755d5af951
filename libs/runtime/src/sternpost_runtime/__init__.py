"""How a Sternpost process lives: bus, subjects, codec, settings, telemetry, health."""
