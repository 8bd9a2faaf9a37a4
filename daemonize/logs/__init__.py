"""The logs of daemons, read: from their end, from a moment on, as they grow and are rotated."""
