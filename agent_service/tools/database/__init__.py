"""What slows a database down: read from its own statistics, never from the tables' rows."""
