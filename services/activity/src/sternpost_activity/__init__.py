"""The memory of Sternpost: what happened to each message."""
