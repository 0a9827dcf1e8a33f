"""The engine: runs, the journal, broadcast, orchestration. Knows no transport, no SQL and no model library."""
