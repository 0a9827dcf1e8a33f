"""The tools over knowledge bases: make them, fill them, search them, export and delete them."""
