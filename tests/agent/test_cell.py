"""What a notebook shows: parts of the report in a frame that can neither reach out nor be reached."""

import html
import re
from typing import Any

from ft_audit.agent.report.cell import dictionaries_cell, feature_cell


def test_a_frame_is_sandboxed_and_holds_the_whole_page(make_case: Any) -> None:
    case = make_case(preview='"></iframe><script>alert(1)</script>', label="</iframe><b onclick=x>")
    for cell in (feature_cell(case.evidence, case.evidence.leading(1)[0]), dictionaries_cell(case.evidence)):
        shown = cell._repr_html_()
        (frame,) = re.findall(r'^<iframe sandbox srcdoc="([^"]*)" style="[^"]*"></iframe>$', shown, re.DOTALL)
        assert html.unescape(frame) == cell.page
        assert "<script" not in cell.page and "default-src &#x27;none&#x27;" in cell.page


def test_the_card_is_the_features_own(labelled: Any) -> None:
    feature = labelled.evidence.leading(1)[0]
    page = feature_cell(labelled.evidence, feature).page
    assert f"<h4>Feature {feature.feature}</h4>" in page and "orders given to ZED" in page
