"""The doctors' web page: an item at a time, judged by keys, saved before it is acknowledged.

    serve       verify the store and serve it
    app         routes and guard together
    entrance    signing in            judging   the doctor's and the expert's pages and what their script sends
    manager     the manager's page    asking    sessions, tokens, bodies, refusals
    content     what pages show       texts     model text made harmless
    guard       size of bodies, headers, internal faults          render, words, templates/, page.js, page.css

Everything is served from here: no foreign host, no inline script, one process.
"""

from __future__ import annotations

from xinglin.annotate.web.serve import serve

__all__ = ["serve"]
