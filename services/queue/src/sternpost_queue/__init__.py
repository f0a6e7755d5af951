"""The brain of Sternpost: which recipients, by which route, when."""
