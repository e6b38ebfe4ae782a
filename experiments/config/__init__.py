"""Options of an experiment, as dataclasses: what --help shows and config.json keeps."""
