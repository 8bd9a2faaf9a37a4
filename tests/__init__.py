"""The tests; shared pieces in tests.support."""
