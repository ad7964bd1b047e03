"""The merchants' door: JSON over HTTP in, gRPC out. It owns no data and no business rule."""
