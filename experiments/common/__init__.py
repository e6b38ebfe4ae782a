"""What all rooms share: files, errors, command lines, tables. Imports no other room."""
