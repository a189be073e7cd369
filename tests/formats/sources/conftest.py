"""A stand-in for each service, and a pull from it."""

import pytest
from service_shapes import SERVICES
from stand_in import StandIn

from ktodata.formats.sources import pull, source_named


@pytest.fixture
def stand_in():
    with StandIn() as server:
        yield server


@pytest.fixture(params=SERVICES, ids=lambda service: service.__name__)
def service(request, stand_in):
    """Each service, with five verdicts on five answers."""
    service = request.param()
    for number in range(5):
        service.add(number)
    stand_in.service = service
    return service


@pytest.fixture
def pull_from(stand_in, tmp_path):
    """Pull from the stand-in into a folder; what is slept is in `pull_from.slept`."""
    slept = []

    def pulled(service, folder=tmp_path / "pulled", sleep=slept.append, **settings):
        settings = {"url": stand_in.url, "project": service.project, "environment": service.environment, **settings}
        return pull(source_named(service.name), folder, sleep=sleep, **settings)

    pulled.slept = slept
    return pulled
