"""The report of an export: one page that needs nothing else, and the same for machines."""

import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from math import inf
from pathlib import Path

import numpy as np
import pytest

from pocketdiffusion.export.findings import Findings
from pocketdiffusion.export.float16.audit import Audit
from pocketdiffusion.export.targets import STRIPED
from pocketdiffusion.reports.decoding import STRIPES, UNDIVIDED, decoding_of, describe_decoding
from pocketdiffusion.reports.page import TEMPLATES
from pocketdiffusion.reports.plots import drift_plot, teacher_forced_db, teacher_forced_plot
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.verdicts import Kind, Verdict
from pocketdiffusion.runtime.program import HALVES
from pocketdiffusion.runtime.verify.check import Check, Scope, Tolerance
from pocketdiffusion.runtime.verify.metrics import Comparison, measure
from pocketdiffusion.runtime.verify.pictures import PictureReport


class Page(HTMLParser):
    """What a page shows, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.elements: list[str] = []
        self.shown = ""
        self.tables_in_boxes = 0  # which scroll, so that the page need not
        self.last: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        boxed = tag == "table" and self.elements[-1] == "div" and self.last.get("class") == "table"
        self.tables_in_boxes += boxed
        self.last = dict(attributes)
        self.elements.append(tag)
        self.loaded += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture(scope="module")
def page(tiny_bundle: Path) -> Page:
    return Page((tiny_bundle / "report/report.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.loaded and all(place.startswith(("data:image/png;base64,", "#")) for place in page.loaded)
    assert "script" not in page.elements and "link" not in page.elements


def test_the_page_shows_every_verdict_graph_and_picture(page: Page, tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    text = (tiny_bundle / "report/report.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>(?:(?!</tr>).)*<td class=\"passed\">.*?</tr>", text, re.S)
    judged = [re.sub("<[^>]*>", " ", row.replace("<wbr>", "")).split() for row in rows]
    assert len(judged) == len(manifest.verdicts)
    for verdict in manifest.verdicts:
        shown = verdict.subject, *(() if verdict.rung == "stage" else verdict.rung.split()), "passed"
        assert any(tuple(row[: len(shown)]) == shown for row in judged), shown
    for format, graphs in manifest.graphs.items():
        for name in graphs:
            assert f"{format} {name}" in page.shown
    for trajectory in manifest.golden:
        assert trajectory.prompt in page.shown
    assert page.elements.count("img") == 3 * len(manifest.golden) and page.elements.count("svg") == 2
    assert "FAILED" not in page.shown and "peak resident memory" in page.shown


def test_the_page_begins_with_the_answer_and_ends_with_tables(page: Page) -> None:
    """Then come pictures, then size, memory and time; each table has a sentence of its own before it."""
    order = ["Proven for", "red apple", "Size of the graphs", "Memory on the phone", "Time of a picture", "PSNR (dB)"]
    places = [page.shown.index(words) for words in order]
    assert places == sorted(places)
    assert re.search(r"Time of a picture on this computer\s*\d+\.\d s", page.shown)
    assert page.elements.index("img") < page.elements.index("table")
    assert page.elements.count("table") == page.tables_in_boxes > 3


def test_the_page_says_what_became_of_rewrites_and_sigmoids(page: Page, tiny_bundle: Path) -> None:
    graphs = open_bundle(tiny_bundle).manifest.graphs["onnx"]
    for graph in graphs.values():
        sigmoids = graph.ops.get("Sigmoid", 0)
        assert re.search(rf"\b{sigmoids} in the file", page.shown)
        assert f"In the file:\n{sum(graph.ops.values())} op" in page.shown
    assert "4: is GELU, another function" in page.shown  # GEGLUs: one down, one in the middle, two up
    assert "changes the model" not in page.shown


def test_the_machines_report_has_the_rewrites_and_the_steps(tiny_bundle: Path) -> None:
    report = json.loads((tiny_bundle / "report/report.json").read_text())
    manifest = open_bundle(tiny_bundle).manifest
    unet = report["rewrites"]["onnx"]["unet"]
    assert unet["changed"] == manifest.graphs["onnx"]["unet"].rewrites
    assert sum(unet["calls_after"].values()) < sum(unet["calls_before"].values())
    assert unet["calls_after"]["pocketdiffusion::attention"] == unet["changed"]["fused_attention"]
    assert unet["together_db"]["rewrites"] == "inf" or unet["together_db"]["rewrites"] > 105
    assert {form["kind"] for form in unet["forms"]} == {"gelu", "silu"}
    assert unet["sigmoids_after"] == manifest.graphs["onnx"]["unet"].ops["Sigmoid"] <= unet["sigmoids_before"]
    (shipped,) = [v for v in report["verdicts"] if v["subject"] == "unet.out_sample" and v["format"]]
    assert len(shipped["case_db"]) == shipped["cases"] and min(shipped["case_db"]) == shipped["psnr_db"]
    assert set(report["steps"]["onnx"]) == {"negative", "positive"}
    assert min(map(min, report["steps"]["onnx"].values())) == shipped["psnr_db"]


def test_the_machines_report_says_the_same(tiny_bundle: Path) -> None:
    report = json.loads((tiny_bundle / "report/report.json").read_text())
    manifest = open_bundle(tiny_bundle).manifest
    assert [v["subject"] for v in report["verdicts"]] == [v.subject for v in manifest.verdicts]
    assert all(v["passed"] is True for v in report["verdicts"])
    assert [len(p["drift_db"]) for p in report["pictures"]] == [t.steps + 1 for t in manifest.golden]  # PNDM's one more
    assert report["peak_mb"] > 100 and sum(report["seconds"].values()) > 1
    recorded = {graph: sum(len(t.graphs[graph].halves) for t in manifest.golden) for graph in report["calls"]}
    assert {graph: calls["original"] for graph, calls in report["calls"].items()} == recorded
    unet = report["calls"]["unet"]["checks"]
    assert unet["onnx fp32"] == recorded["unet"] > unet["rewrites"] == len(manifest.golden) * 3 * 2


def test_forced_steps_are_those_of_the_worst_prompt() -> None:
    """Of two prompts of two and of three steps, each with both halves; a rung with fewer cases is left out."""

    calls = [(half, step) for steps in (2, 3) for step in range(steps) for half in HALVES]

    def verdict(format: str, *case_db: float) -> Verdict:
        zero = np.zeros(1, np.float32)
        report = measure(
            "unet.out_sample",
            [Comparison("", zero, zero)],
            Check(Kind.ARTIFACT, Tolerance(60.0), Scope(format, recipe="fp16")),
        )
        return replace(report, case_db=case_db)

    verdicts = [verdict("onnx", 90, 80, 70, 60, 89, 85, 71, 50, 40, 30), verdict("tflite", 10, 10)]
    found = teacher_forced_db(verdicts, "unet.out_sample", calls)
    assert found == {"onnx": {"negative": (89, 70, 40), "positive": (80, 50, 30)}}
    assert "onnx: negative half" in teacher_forced_plot(found)


def test_the_plot_is_always_the_same_and_text_stays_text() -> None:
    """Also where latents are equal, or not finite."""
    picture = np.zeros((8, 8, 3), np.uint8)
    reports = [
        PictureReport("onnx", "a very long prompt that no legend has room for", inf, 1.0, (inf, 90.0, -inf), picture),
        PictureReport("coreml", "<b>", 40.0, 1.0, (60.0, 50.0, 40.0), picture),
    ]
    first, second = drift_plot(reports), drift_plot(reports)
    assert first == second and first.startswith("<svg")
    assert "onnx: a very long prompt that no…" in first and "coreml: &lt;b&gt;" in first


@pytest.mark.parametrize(("name", "record", "one"), [("f", Findings, "audit"), (r"f\.audit", Audit, "corrections")])
def test_the_template_of_findings_names_their_fields(name: str, record: type, one: str) -> None:
    """A missing one fails an export only after all of its work."""
    used = set(re.findall(rf"\b{name}\.(\w+)", (TEMPLATES / "findings.html").read_text(encoding="utf-8")))
    assert one in used and used <= {field.name for field in fields(record)}


def test_it_says_how_the_vae_decodes(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    assert (decoding_of(manifest), describe_decoding(manifest)) == (UNDIVIDED, "The VAE decodes a picture in one piece")
    decoder = manifest.graphs["onnx"]["vae_decoder"]
    striped = decoder.model_copy(update={"rewrites": {**decoder.rewrites, STRIPED: 3}})
    graphs = {"onnx": {**manifest.graphs["onnx"], "vae_decoder": striped}}
    changed = manifest.model_copy(update={"graphs": graphs})
    assert decoding_of(changed) == STRIPES and "in horizontal stripes" in describe_decoding(changed)
