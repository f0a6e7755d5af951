"""From Sternpost manifests to configuration."""
