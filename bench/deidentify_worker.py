"""One finder in a process of its own: a JSON list of texts a line in, spans, CPU seconds and peak memory out.

    python bench/deidentify_worker.py xinglin             our rules, no structured fields, no tagger
    python bench/deidentify_worker.py presidio-generic    Presidio's recognisers that belong to no country
    python bench/deidentify_worker.py presidio-all        those and the ones of all its countries

The first line it writes holds the versions. It runs in the environment of its peer, so it imports nothing else of this
project. Presidio has no Chinese model that runs offline: its engine is a blank spaCy "zh" (characters, no entities),
its pattern recognisers are told that their language is Chinese, its telephone recogniser that the country is China.
"""

from __future__ import annotations

import inspect
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Find = Callable[[str], list[tuple[int, int, str]]]


def xinglin_finder() -> tuple[Find, dict[str, str]]:
    from xinglin.data.deidentify.find import find

    return lambda text: [(span.start, span.end, span.kind) for span in find(text)], {"xinglin": version("xinglin")}


def presidio_finder(every_country: bool) -> tuple[Find, dict[str, str]]:
    import presidio_analyzer
    import spacy

    logging.disable(logging.WARNING)
    nlp = presidio_analyzer.nlp_engine.SpacyNlpEngine(models=[{"lang_code": "zh", "model_name": "blank"}])
    nlp.nlp = {"zh": spacy.blank("zh")}
    registry = presidio_analyzer.RecognizerRegistry(_recognisers(every_country), supported_languages=["zh"])
    engine = presidio_analyzer.AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["zh"])

    def find(text: str) -> list[tuple[int, int, str]]:
        return [(result.start, result.end, result.entity_type) for result in engine.analyze(text, language="zh")]

    packages = ("presidio-analyzer", "spacy", "phonenumbers")
    return find, {name: version(name) for name in packages} | {"recognisers": str(len(registry.recognizers))}


def _recognisers(every_country: bool) -> list[Any]:
    """All that need neither a model nor a service."""
    from presidio_analyzer import PatternRecognizer, predefined_recognizers

    found: list[Any] = []
    classes: list[tuple[str, Any]] = inspect.getmembers(predefined_recognizers, inspect.isclass)
    for name, recogniser in classes:
        generic = ".generic." in recogniser.__module__
        if name == "PhoneRecognizer":
            found.append(recogniser(supported_language="zh", supported_regions=("CN",)))
        elif issubclass(recogniser, PatternRecognizer) and (generic or every_country):
            found.append(recogniser(supported_language="zh"))
    return found


def peak_memory() -> int:
    """Bytes. Linux counts it anew for each program; elsewhere 0."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


def main() -> None:
    peer = sys.argv[1]
    find, versions = xinglin_finder() if peer == "xinglin" else presidio_finder(peer == "presidio-all")
    find("患者王某，电话13800138000，2023年5月1日入院。")  # what is built once is built before the clock starts
    print(json.dumps({"python": platform.python_version(), **versions}), flush=True)
    for line in sys.stdin:
        texts = json.loads(line)
        start = time.process_time()
        spans = [find(text) for text in texts]
        seconds = time.process_time() - start
        print(json.dumps({"spans": spans, "seconds": seconds, "peak_memory": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
