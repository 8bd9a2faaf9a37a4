"""What is in a daemon's logs."""
