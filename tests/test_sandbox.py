import gzip
import http.client
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from email.utils import parsedate_to_datetime
from hashlib import sha256
from types import TracebackType
from typing import Any

import pytest

from etl.sandbox import Account, Answer, ReceivedRequest, SandboxServer
from etl.sandbox.filters import FIELDS, OUTGOING, FilterError
from etl.sandbox.numbering import REGIONS
from etl.sandbox.server import LIST_PATH

OUTGOING_TARGET = f"{LIST_PATH}?purpose__ne=not_specified&state=active&type=def&type=abc"
TOKEN = "f0e1d2c3-token"


class Client(http.client.HTTPConnection):
    """A client that hides nothing: no retries, no decompression, one connection."""

    def __init__(self, server: SandboxServer, timeout: float = 5) -> None:
        super().__init__("127.0.0.1", server.port, timeout=timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, target: str = OUTGOING_TARGET, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        self.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return self.getresponse()

    def get(self, target: str = OUTGOING_TARGET, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        response = self.ask(target, method, **headers)
        return response.status, response.read()

    def list(self, target: str = OUTGOING_TARGET) -> Any:
        status, body = self.get(target)
        assert status == 200
        return json.loads(body)


@pytest.fixture
def account() -> Account:
    return Account.generate(40)


@pytest.fixture
def server(account: Account) -> Iterator[SandboxServer]:
    with SandboxServer(account) as server:
        yield server


@pytest.fixture
def client(server: SandboxServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def by_id(records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {record["id"]: record for record in records}


# The account


def test_the_same_seed_gives_the_same_bytes_on_every_python() -> None:
    account = Account.generate(50, seed=7)
    account.churn(0.2)
    assert sha256(account.json([])).hexdigest() == "48515ebfe1556e46dba55d363ca728ff2e859c23689129e77ec1afbe71b96d45"


def test_another_seed_gives_other_numbers() -> None:
    assert Account.generate(5, seed=1).records != Account.generate(5, seed=2).records


@pytest.mark.parametrize(("numbers", "outside"), [(0, 0), (1, 0), (8, 1), (80, 10)])
def test_numbers_counts_those_inside_the_filter(numbers: int, outside: int) -> None:
    account = Account.generate(numbers)
    assert len(account.outgoing()) == numbers
    assert len(account.records) == numbers + outside


def test_every_reason_to_be_outside_occurs() -> None:
    records = Account.generate(80).records
    assert {record["state"] for record in records} == {"active", "freeze", "debt_lock", "activation", "unconfirmed"}
    assert {record["purpose"] for record in records} == {"company", "employee", "not_specified"}
    assert {record["type"] for record in records} == {"def", "abc", "toll_free", "sip_registration", "sip_redirection"}


def test_records_have_the_fields_of_the_page_in_its_order() -> None:
    assert all(tuple(record) == FIELDS for record in Account.generate(20).records)


def test_ids_are_unique_across_numbers_and_redirects() -> None:
    records = Account.generate(300).records
    redirects = [redirect for record in records for redirect in record["from_redirect_numbers"]]
    ids = [entry["id"] for entry in (*records, *redirects)]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert {len(record["from_redirect_numbers"]) for record in records} == {0, 1, 2, 3, 4, 5}
    assert 1.7 < len(redirects) / len(records) < 2.3


def assert_consistent(record: dict[str, Any]) -> None:
    assert re.fullmatch(r"7\d{10}", record["number"])
    assert (record["scenario_id"] is None) == (record["is_scenario_active"] is None)
    assert (record["group_scenario_id"] is None) == (record["is_group_scenario_active"] is None)
    assert record["group_id"] is not None or record["group_scenario_id"] is None
    assert (record["employee_id"] is not None) == (record["purpose"] == "employee")
    assert (record["sip_uri"] is not None) == (record["type"] == "sip_redirection")
    assert (record["dgn_number"] is not None) == (record["nc_type"] == "custom+fmc")
    if record["state"] == "active":
        assert record["reason"] is None
    regions = {region.name: region for region in REGIONS}
    if record["type"] == "toll_free":
        assert record["number"].startswith("7800")
    elif record["type"] == "def":
        assert record["number"].startswith("79")
        assert record["number"][1:4] in regions[record["region_name"]].mobile_codes
    elif record["type"] == "abc":
        assert record["number"][1:4] in regions[record["region_name"]].city_codes


def test_records_are_consistent_and_stay_so() -> None:
    account = Account.generate(300)
    for _ in range(5):
        for record in account.records:
            assert_consistent(record)
        account.churn(0.5)


def test_no_two_regions_share_a_city_code() -> None:
    codes = [code for region in REGIONS for code in region.city_codes]
    assert len(set(codes)) == len(codes)


# Filters


SMALL = [
    {"id": 1, "type": "def", "comment": None, "is_scenario_active": True, "from_redirect_numbers": []},
    {"id": 2, "type": "abc", "comment": "Склад & офис", "is_scenario_active": False, "from_redirect_numbers": []},
    {"id": 3, "type": "toll_free", "comment": "", "is_scenario_active": None, "from_redirect_numbers": []},
]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [1, 2, 3]),
        ("type=def", [1]),
        ("type=def&type=abc", [1, 2]),
        ("type__ne=def", [2, 3]),
        ("type__ne=def&type__ne=abc", [3]),
        ("type=def&type=abc&type__ne=abc", [1]),
        ("type=def&id=2", []),
        ("type=unheard_of", []),
        ("id=2&id=3", [2, 3]),
        ("is_scenario_active=true", [1]),
        ("is_scenario_active=false", [2]),
        ("is_scenario_active=null", [3]),
        ("comment=null", [1]),
        ("comment=", [3]),
        ("comment__ne=null", [2, 3]),
        ("comment=%D0%A1%D0%BA%D0%BB%D0%B0%D0%B4+%26+%D0%BE%D1%84%D0%B8%D1%81", [2]),
        ("group_id=null", [1, 2, 3]),
    ],
)
def test_filter_syntax(server: SandboxServer, client: Client, query: str, ids: list[int]) -> None:
    server.account = Account(SMALL)
    assert [record["id"] for record in client.list(f"{LIST_PATH}?{query}")] == ids


@pytest.mark.parametrize("query", ["colour=red", "type__gt=1", "from_redirect_numbers=null", "__ne=1", "comment=%FF"])
def test_a_bad_filter_is_400(client: Client, query: str) -> None:
    status, body = client.get(f"{LIST_PATH}?{query}")
    assert status == 400
    assert json.loads(body)["error"] == "bad_filter"


def test_select_and_outgoing_agree_with_the_server(account: Account, client: Client) -> None:
    assert client.list() == account.select(OUTGOING) == account.outgoing()
    with pytest.raises(FilterError, match="colour"):
        account.select([("colour", "red")])


# Churn


def test_churn_changes_about_the_share_asked_for() -> None:
    account = Account.generate(1000)
    before = by_id(account.outgoing())
    account.churn(0.1)
    after = by_id(account.outgoing())
    touched = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    assert 90 <= len(touched) <= 100


@pytest.mark.parametrize("numbers", [1, 2, 7])
def test_churn_always_changes_something(numbers: int) -> None:
    account = Account.generate(numbers)
    for _ in range(50):
        before = account.json(OUTGOING)
        account.churn(0.001)
        assert account.json(OUTGOING) != before


def test_every_kind_of_change_occurs() -> None:
    account = Account.generate(200)
    kinds = set()
    for _ in range(20):
        before, before_all = by_id(account.outgoing()), by_id(account.records)
        account.churn(0.2)
        after, after_all = by_id(account.outgoing()), by_id(account.records)
        kinds |= {"withdrawn" if key in after_all else "released" for key in before.keys() - after.keys()}
        kinds |= {"restored" if key in before_all else "new" for key in after.keys() - before.keys()}
        for key in before.keys() & after.keys():
            kinds |= {field for field in FIELDS if before[key][field] != after[key][field]}
    fields = {"comment", "scenario_id", "is_scenario_active", "from_redirect_numbers"}
    assert kinds == {"withdrawn", "released", "restored", "new"} | fields


def test_the_size_is_stable_over_many_churns() -> None:
    account = Account.generate(160)
    for _ in range(100):
        account.churn(0.3)
        assert 158 <= len(account.outgoing()) <= 162
        assert 165 <= len(account.records) <= 200
    ids = [entry["id"] for record in account.records for entry in (record, *record["from_redirect_numbers"])]
    assert len(set(ids)) == len(ids)


def test_churn_is_deterministic() -> None:
    first, second = Account.generate(50, seed=3), Account.generate(50, seed=3)
    for _ in range(5):
        first.churn(0.2)
        second.churn(0.2)
    assert first.json([]) == second.json([])


def test_churn_leaves_lists_taken_before_alone() -> None:
    account = Account.generate(50)
    taken = account.outgoing()
    text = json.dumps(taken)
    account.churn(1)
    assert json.dumps(taken) == text


def test_churn_of_nothing() -> None:
    account = Account.generate(20)
    before = account.json([])
    account.churn(0)
    assert account.json([]) == before
    empty = Account()
    empty.churn(1)
    assert empty.records == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        account.churn(1.5)


def test_churn_never_reuses_ids_of_records_added_by_hand() -> None:
    account = Account.generate(10)
    account.records.append({**account.records[0], "id": 10**9, "number": "70000000000"})
    known = by_id(account.records)
    for _ in range(10):
        account.churn(1)
    new = by_id(account.records).keys() - known.keys()
    assert new
    assert min(new) > 10**9


def test_the_server_churns_between_lists_only() -> None:
    account = Account.generate(40)
    first = account.json(OUTGOING)
    with SandboxServer(account, churn=0.1) as server, Client(server) as client:
        server.script(Answer(503))
        assert client.get()[0] == 503
        assert client.get()[1] == first
        assert client.get(f"{LIST_PATH}?colour=red")[0] == 400
        assert account.json(OUTGOING) == first
        assert client.get()[1] != first
        server.account = Account.generate(40)
        assert client.get()[1] == first


# The API's behaviour


def test_the_answer_is_the_apis(client: Client, account: Account) -> None:
    response = client.ask()
    body = response.read()
    assert response.version == 11
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert response.headers["Content-Length"] == str(len(body))
    assert abs(parsedate_to_datetime(response.headers["Date"]).timestamp() - time.time()) < 5
    assert "область".encode() in body
    assert json.loads(body) == account.outgoing()


@pytest.mark.parametrize(
    ("given", "status"), [(None, 401), ("", 401), ("wrong", 401), (f"Bearer {TOKEN}", 401), ("п", 401), (TOKEN, 200)]
)
def test_the_token_is_the_whole_authorization(given: str | None, status: int) -> None:
    with SandboxServer(Account(), token=TOKEN) as server, Client(server) as client:
        headers = {} if given is None else {"Authorization": given.encode().decode("latin-1")}
        got, body = client.get(**headers)
        assert got == status
        assert isinstance(json.loads(body), list if status == 200 else dict)
        server.token = "made anew"
        assert client.get(**headers)[0] == 401


def test_without_a_token_everybody_may_read(client: Client) -> None:
    assert client.get(Authorization="anything")[0] == 200


def test_a_blocked_address_is_403_whatever_its_token(server: SandboxServer, client: Client) -> None:
    server.token, server.blocked = TOKEN, True
    status, body = client.get(Authorization=TOKEN)
    assert status == 403
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize("path", ["/", "/numbers", f"{LIST_PATH}/", f"/{LIST_PATH}"])
def test_other_paths_are_404(client: Client, path: str) -> None:
    status, body = client.get(path)
    assert status == 404
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"])
def test_other_methods_are_405(client: Client, method: str) -> None:
    response = client.ask(method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET"
    assert (response.read() == b"") == (method == "HEAD")
    assert client.get()[0] == 200  # on the same connection


def test_a_requests_body_is_not_taken_for_the_next_request(client: Client) -> None:
    client.request("POST", LIST_PATH, body=b"GET / HTTP/1.1\r\n\r\n")
    response = client.getresponse()
    assert (response.status, response.read() != b"") == (405, True)
    assert client.get()[0] == 200


def test_what_is_not_http_is_400(server: SandboxServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/x.y\r\n\r\n")
        assert b" 400 " in raw.makefile("rb").readline()
    assert server.requests == []


def test_gzip_is_for_clients_that_accept_it(account: Account, server: SandboxServer, client: Client) -> None:
    plain = account.json(OUTGOING)
    for _ in range(2):
        response = client.ask(Accept_Encoding="deflate, GZIP;q=0.5")
        assert response.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(response.read()) == plain
    for offer in ("identity", "gzip;q=0", ""):
        response = client.ask(Accept_Encoding=offer)
        assert response.headers["Content-Encoding"] is None
        assert response.read() == plain
    server.script(Answer(body=b"as it is"))
    assert client.get(Accept_Encoding="gzip") == (200, b"as it is")


def test_gzip_can_be_switched_off(account: Account) -> None:
    with SandboxServer(account, gzip=False) as server, Client(server) as client:
        assert client.get(Accept_Encoding="gzip") == (200, account.json(OUTGOING))


def test_edits_show_at_once(account: Account, server: SandboxServer, client: Client) -> None:
    assert len(client.list()) == 40
    record = account.records[0]
    assert client.list()[0] == record
    record["comment"] = "правка"
    assert client.list()[0]["comment"] == "правка"
    record["from_redirect_numbers"].append({"id": 10**9, "number": "78000000000"})
    assert client.list()[0]["from_redirect_numbers"][-1]["id"] == 10**9
    account.records = account.records[:3]
    assert len(client.list(LIST_PATH)) == 3
    server.account = Account()
    assert client.list() == []


def test_an_unchanged_list_is_written_only_once(account: Account, server: SandboxServer) -> None:
    assert account.json(OUTGOING) is account.json(OUTGOING)
    handed_out = account.records
    assert account.json(OUTGOING) is account.json(OUTGOING)
    assert handed_out
    assert server.requests == []


def test_one_connection_serves_many_requests(server: SandboxServer, client: Client) -> None:
    client.get()
    first = client.sock
    client.get(f"{LIST_PATH}?type=def", X_Trace="1")
    assert client.sock is first
    assert [request.target for request in server.requests] == [OUTGOING_TARGET, f"{LIST_PATH}?type=def"]
    request = server.requests[1]
    assert isinstance(request, ReceivedRequest)
    assert request.method == "GET"
    assert request.headers["x-trace"] == "1"
    assert 0 <= request.at - server.requests[0].at < 5


def test_received_requests_are_raw(server: SandboxServer, client: Client) -> None:
    client.putrequest("GET", "//a/../b?x=%41&&y")
    client.putheader("X-Twice", "1")
    client.putheader("x-twice", "2")
    client.endheaders()
    client.getresponse().read()
    assert server.requests[0].target == "//a/../b?x=%41&&y"
    assert server.requests[0].headers["x-twice"] == "1, 2"


def test_many_clients_at_once(server: SandboxServer, account: Account) -> None:
    bodies = []

    def fetch() -> None:
        with Client(server) as client:
            bodies.append(client.get()[1])

    threads = [threading.Thread(target=fetch) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [account.json(OUTGOING)] * 20


# Scripted answers


def test_scripted_answers_come_in_order_before_normal_service(server: SandboxServer, client: Client) -> None:
    server.token = TOKEN
    server.script(Answer(503, {"Retry-After": "1"}), Answer.json(200, [{"имя": 1}]))
    server.script(Answer(599, {"content-type": "text/html"}, b"<p>"))
    first = client.ask("/anything")
    assert (first.status, first.headers["Retry-After"], first.read()) == (503, "1", b"")
    assert client.get() == (200, '[{"имя": 1}]'.encode())
    third = client.ask()
    assert (third.status, third.headers.get_all("Content-Type"), third.read()) == (599, ["text/html"], b"<p>")
    assert client.get()[0] == 401


def test_serve_body_replaces_the_list_until_reset(account: Account, server: SandboxServer, client: Client) -> None:
    server.serve_body(b"\xff not json")
    for _ in range(2):
        assert client.get(Accept_Encoding="gzip") == (200, b"\xff not json")
    assert client.get("/elsewhere")[0] == 404
    server.serve_body(b"")
    assert client.get() == (200, b"")
    server.serve_body(None)
    assert client.list() == account.outgoing()


def test_delay_comes_before_the_headers(server: SandboxServer, client: Client) -> None:
    server.script(Answer(delay=0.1))
    started = time.monotonic()
    client.ask().read()
    assert time.monotonic() - started >= 0.1


def test_a_content_length_too_long(server: SandboxServer, client: Client) -> None:
    server.script(Answer(body=b"[1, 2]", content_length=100))
    response = client.ask()
    assert response.headers["Content-Length"] == "100"
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b"[1, 2]"


def test_a_content_length_too_short(server: SandboxServer, client: Client) -> None:
    server.script(Answer(body=b"[1, 2]", content_length=3))
    assert client.get() == (200, b"[1,")
    client.close()
    assert client.get()[0] == 200


@pytest.mark.parametrize("cut_after", [0, 3])
def test_a_body_cut_short(server: SandboxServer, client: Client, cut_after: int) -> None:
    server.script(Answer(body=b"[1, 2]", cut_after=cut_after))
    response = client.ask()
    assert response.headers["Content-Length"] == "6"
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b"[1, 2]"[:cut_after]


def test_chunks(server: SandboxServer, client: Client) -> None:
    server.script(Answer(body=b"0123456789", chunked=True, chunk_size=4), Answer(chunked=True))
    response = client.ask()
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Content-Length"] is None
    assert response.read() == b"0123456789"
    assert client.get() == (200, b"")
    assert client.get()[0] == 200


@pytest.mark.parametrize(
    ("answer", "wire"),
    [
        (Answer(body=b"0123456789", chunked=True, chunk_size=4), b"4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n"),
        (Answer(body=b"0123", chunked=True, end_chunks=False), b"4\r\n0123\r\n"),
        (Answer(body=b"01234567", chunked=True, chunk_size=4, cut_after=6), b"4\r\n0123\r\n4\r\n45"),
        (Answer(body=b"01234567", chunked=True, chunk_size=4, cut_after=4), b"4\r\n0123\r\n"),
        (Answer(body=b"01234567", chunked=True, chunk_size=4, cut_after=8), b"4\r\n0123\r\n4\r\n4567\r\n"),
        (Answer(body=b"01234567", chunked=True, cut_after=0), b""),
        (Answer(body=b"0123", cut_after=9), b"0123"),
    ],
)
def test_the_body_on_the_wire(server: SandboxServer, answer: Answer, wire: bytes) -> None:
    server.script(answer)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        if not answer.ends_connection:
            raw.shutdown(socket.SHUT_WR)
        with raw.makefile("rb") as answered:
            assert answered.read().partition(b"\r\n\r\n")[2] == wire


def test_an_endless_chunked_body_is_incomplete(server: SandboxServer, client: Client) -> None:
    server.script(Answer(body=b"[]", chunked=True, end_chunks=False))
    with pytest.raises(http.client.IncompleteRead):
        client.get()


def test_a_chunk_has_a_size() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Answer(chunked=True, chunk_size=0)


def test_drip_waits_before_each_byte(server: SandboxServer, client: Client) -> None:
    server.script(Answer(body=b"[1]", drip=0.02))
    started = time.monotonic()
    response = client.ask()
    assert response.headers["Content-Length"] == "3"
    assert response.read() == b"[1]"
    assert time.monotonic() - started >= 0.06


def test_reset(server: SandboxServer, client: Client) -> None:
    server.script(Answer(reset=True))
    with pytest.raises(ConnectionResetError):
        client.get()
    client.close()
    assert client.get()[0] == 200


def test_an_answer_may_close_the_connection(server: SandboxServer, client: Client) -> None:
    server.script(Answer(headers={"Connection": "close"}, body=b"[]"))
    assert client.ask().read() == b"[]"
    assert client.sock is None


# Starting and stopping


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        SandboxServer(Account(), host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_any_loopback_address_will_do(host: str) -> None:
    with SandboxServer(Account(), host=host) as server:
        assert server.base_url == f"http://{host}:{server.port}"
        socket.create_connection((host, server.port), timeout=5).close()


def test_a_taken_port_is_an_error(server: SandboxServer) -> None:
    with pytest.raises(OSError, match="in use"):
        SandboxServer(Account(), port=server.port)


def test_a_hundred_numbers_by_default() -> None:
    with SandboxServer() as server, Client(server) as client:
        assert len(client.list()) == 100


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"[]"),
        Answer(delay=60),
        Answer(body=b"[" * 100, drip=60),
        Answer(body=b"[" * 50_000_000),  # more than the client's buffers hold
    ],
    ids=["idle", "delayed", "dripping", "stuck"],
)
def test_stopping_is_quick_whatever_the_connections_do(answer: Answer) -> None:
    with SandboxServer(Account()) as server:
        server.script(answer)
        client = Client(server)
        client.request("GET", LIST_PATH)
        while not server.requests:
            time.sleep(0.001)
        started = time.monotonic()
    assert time.monotonic() - started < 1  # 0.02 on an idle machine
    with client, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)
    server.close()


def test_clients_that_hang_up_leave_no_trace(server: SandboxServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.script(Answer(body=b"x" * 20_000_000), Answer(body=b"xxx", drip=0.01))
    for _ in range(2):
        with Client(server) as client:
            client.request("GET", LIST_PATH)
            client.getresponse()
    with Client(server) as client:
        client.get()
    time.sleep(0.05)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("in_context", [False, True])
def test_serve_forever_passes_on_what_ended_it_and_closes(in_context: bool) -> None:
    server = SandboxServer(Account(), token=TOKEN)
    answers = []

    def visit() -> None:
        with Client(server) as client:
            answers.append(client.get(LIST_PATH, Authorization=TOKEN))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def serve(visitor: threading.Thread) -> None:
        visitor.start()
        server.serve_forever()

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        visitor = threading.Thread(target=visit)
        with server if in_context else nullcontext(), pytest.raises(KeyboardInterrupt):
            serve(visitor)
        visitor.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert answers == [(200, b"[]")]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_the_access_log_is_printable_and_without_headers() -> None:
    lines: list[str] = []
    with SandboxServer(Account(), token=TOKEN, on_request=lines.append) as server:
        server.script(Answer(reset=True))
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(b"GET /\x1b[31m\xff HTTP/1.1\r\nAuthorization: " + TOKEN.encode() + b"\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                raw.recv(1)
    assert lines == [r'"GET /\x1b[31m\xff" reset']
