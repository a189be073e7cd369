"""Runs of these tests make pages without their pictures, which are nine tenths of a small page's time; tests/report looks at those."""

from collections.abc import Iterator

import pytest
from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.sections import experiment_pictures, over_time


@pytest.fixture(autouse=True, scope="module")
def without_pictures() -> Iterator[None]:
    def titled(figure: object, key: str, title: str, description: str) -> Markup:
        return Markup("<svg><title>{}</title><desc>{}</desc></svg>").format(title, description)

    with pytest.MonkeyPatch.context() as patch:
        for module in (figures, experiment_pictures, over_time):
            patch.setattr(module, "svg", titled)
        yield
