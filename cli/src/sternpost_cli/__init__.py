"""The sternpost command."""
