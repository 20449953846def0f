"""The rules that find identifiers: one file per family, all over one normalised view of the text."""
