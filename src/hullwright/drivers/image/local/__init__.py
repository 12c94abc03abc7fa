"""The embedded image service: a directory of files."""
