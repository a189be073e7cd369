"""What happens between a service and us: failures, waiting, redirects, refusals, and secrets that stay where they are."""

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from service_shapes import Langfuse
from stand_in import Answer, StandIn

from ktodata.errors import ServiceError


@pytest.fixture
def langfuse(stand_in):
    service = stand_in.service = Langfuse()
    for number in range(3):
        service.add(number)
    return service


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status, langfuse, pull_from, stand_in):
    stand_in.instead = [Answer({}, status), Answer({}, status)]
    assert pull_from(langfuse).n_records == 3
    assert pull_from.slept == [1.0, 2.0]


@pytest.mark.parametrize("header", ["7", "date"])
def test_retry_after_is_obeyed(header, langfuse, pull_from, stand_in):
    value = format_datetime(datetime.now(UTC) + timedelta(seconds=7), usegmt=True) if header == "date" else header
    stand_in.instead = [Answer({}, 429, {"retry-after": value})]
    assert pull_from(langfuse).n_records == 3
    assert pull_from.slept == [pytest.approx(7, abs=1.5)]


def test_a_long_wait_is_left_to_the_caller(langfuse, pull_from, stand_in):
    stand_in.instead = [None, Answer({}, 429, {"retry-after": "3600"})]
    with pytest.raises(ServiceError, match="3,600 seconds"):
        pull_from(langfuse)
    assert pull_from.slept == []
    assert pull_from(langfuse).n_records == 3


def test_a_failure_that_stays(langfuse, pull_from, stand_in):
    stand_in.instead = [Answer({"error": "out of order"}, 500)] * 6
    with pytest.raises(ServiceError, match=r"6 times.*out of order"):
        pull_from(langfuse)
    assert pull_from.slept == [1, 2, 4, 8, 16]


def test_nobody_there(langfuse, pull_from):
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/.*ConnectError"):
        pull_from(langfuse, url="http://127.0.0.1:1")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_names_the_variables(status, langfuse, pull_from, stand_in):
    stand_in.instead = [Answer({"message": "Invalid"}, status)]
    with pytest.raises(ServiceError, match=f"{status}.*LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"):
        pull_from(langfuse)
    assert len(stand_in.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_are_not_sent_to_another_host(status, langfuse, pull_from, stand_in):
    with StandIn() as other:
        stand_in.instead = [Answer({}, status, {"location": f"{other.url}/api/public/v3/scores"})]
        with pytest.raises(ServiceError, match="another host") as error:
            pull_from(langfuse)
        assert other.requests == []
        assert other.url in str(error.value)


def test_a_redirect_on_the_same_host_is_followed(langfuse, pull_from, stand_in):
    stand_in.instead = [Answer({}, 307, {"location": "/api/public/v3/scores?limit=100&fields=details,subject,annotation"})]
    assert pull_from(langfuse).n_records == 3


def test_redirects_without_end(langfuse, pull_from, stand_in):
    stand_in.service = lambda request: Answer({}, 307, {"location": request.path})
    with pytest.raises(ServiceError, match="redirects more than"):
        pull_from(langfuse)


def test_an_answer_that_is_not_json(langfuse, pull_from, stand_in):
    stand_in.instead = [Answer(b"<!doctype html><title>Sign in</title>", 200, {"content-type": "text/html"})]
    with pytest.raises(ServiceError, match=r"/api/public/v3/scores.*text/html.*Sign in"):
        pull_from(langfuse)


def test_secrets_are_nowhere(langfuse, pull_from, stand_in, tmp_path):
    """Neither in files nor in messages, even where the service sends them back."""
    secrets = [*langfuse.environment.values()]

    def echo(request):
        secrets.append(request.headers["authorization"].removeprefix("Basic "))
        if request.path == "/api/public/v3/scores":
            langfuse.scores["s0"]["comment"] = " ".join([*secrets, request.headers["authorization"]])
        return langfuse(request)

    stand_in.service = echo
    pull_from(langfuse)
    messages = []
    for status in (400, 401, 404, 500):
        stand_in.service = lambda request, status=status: Answer({"headers": request.headers, "keys": secrets}, status)
        with pytest.raises(ServiceError) as error:
            pull_from(langfuse)
        messages.append(str(error.value))
    files = [path for path in (tmp_path / "pulled").rglob("*") if path.is_file()]
    assert len(files) >= 5
    for secret in set(secrets):
        for path in files:
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert secret.encode() not in content, path
        assert not [message for message in messages if secret in message]
