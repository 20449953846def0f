"""De-identification of Chinese clinical notes: find identifiers, replace them, prove that none is left.

kinds.py names the identifiers; find.py finds them (recognisers/ holds the rules, lexicons/ the word lists).
"""
