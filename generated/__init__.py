"""Made by `make generate` from the files in `protos/`; never edited by hand."""
