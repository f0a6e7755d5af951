"""Generated protobuf code of Sternpost."""
