"""Model text made harmless to look at: escaped by the template, controls shown as marks, long ones folded.

A text is cut into parts: runs that are shown as they are, and single characters that would change how the rest looks
(bidirectional overrides, zero-width characters, control codes), which become marks. A mark counts as one character, so
that a position on the page is a position in the text.
"""

from __future__ import annotations

import re

FOLD = 2_000  # characters; what is longer starts folded
NAMES = {
    **{0x061C: "ALM", 0x200E: "LRM", 0x200F: "RLM", 0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO"},
    **{0x202E: "RLO", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0x200B: "ZWSP", 0x2060: "WJ"},
    **{0xFEFF: "BOM", 0x00AD: "SHY", 0x2028: "LS", 0x2029: "PS"},
    0x0D: " ",  # the parser of HTML turns CR LF into one character; a mark without a name keeps the count
}
# Controls but for tab and line feed, format characters but for the joiners of emoji, line separators, half characters.
CONTROLS = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f])\\1*"
)


def parts(text: str) -> list[tuple[str, str, int]]:
    """(run, "", 0) for what is shown as it is, (hex code, name, how many) for a mark, in the order of the text.

    >>> parts("a\\u202e\\u202eb")
    [('a', '', 0), ('202E', 'RLO', 2), ('b', '', 0)]
    """
    found: list[tuple[str, str, int]] = []
    end = 0
    for match in CONTROLS.finditer(text):
        if match.start() > end:
            found.append((text[end : match.start()], "", 0))
        code = ord(match[1])
        found.append((f"{code:04X}", NAMES.get(code, f"U+{code:04X}"), len(match[0])))
        end = match.end()
    return [*found, (text[end:], "", 0)] if end < len(text) else found
