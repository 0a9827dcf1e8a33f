"""The child process that alone reads users' datasets: DuckDB behind frames of JSON on its standard input and output.

`sandbox.py` starts it as `python -I <this folder>` and may kill it at any moment. One request is answered by one reply:
`open` reads a file into a fresh database, `run` executes our own SQL, `select` a user's, `close` forgets the file.
It imports nothing of ours from outside this folder, so that it starts quickly and knows nothing of the service.
"""
