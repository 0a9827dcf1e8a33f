"""Every way to provoke an error, by reason and by how a client hears of it."""
