"""The child process that reads foreign files. It imports nothing of ours but this."""
