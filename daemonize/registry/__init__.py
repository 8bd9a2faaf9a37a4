"""What is known of named daemons: names, records, logs, and where they are."""
