"""The history of the tables. Alembic runs it, from the installed package, without a configuration file."""
