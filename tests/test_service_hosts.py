"""The addresses at which the service listens."""

import socket

import httpx
import pytest
from keras_matting_api.listeners import listeners_at
from keras_matting_api.settings import ServiceSettings
from server import start_server

from keras_matting.errors import UsageError


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def bound(hosts, port=0):
    """Return the (host, port) pairs of listeners, closed again, and whether IPv4 came through."""
    listeners = listeners_at(hosts, port)
    try:
        names = [listener.getsockname()[:2] for listener in listeners]
        with socket.socket() as client:
            reached = client.connect_ex(("127.0.0.1", names[0][1])) == 0
    finally:
        for listener in listeners:
            listener.close()
    return names, reached


@needs_ipv6
def test_every_ipv6_address_is_every_ipv4_address_too():
    names, reached = bound(["::"])
    assert [host for host, _ in names] == ["::"]
    assert reached or not socket.has_dualstack_ipv6()


@needs_ipv6
def test_several_hosts_share_a_port():
    names, reached = bound(["0.0.0.0", "::"])
    assert [host for host, _ in names] == ["0.0.0.0", "::"]
    assert len({port for _, port in names}) == 1
    assert reached


@needs_ipv6
def test_one_ipv6_address_is_no_other():
    assert bound(["::1"])[1] is False


def test_a_host_given_twice_is_one():
    assert len(bound(["127.0.0.1", "127.0.0.1"])[0]) == 1


def test_a_port_that_is_taken_at_one_host_is_refused_and_nothing_stays_open():
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"received 127.0.0.2:{port}: .* Use another --port"):
            listeners_at(["127.0.0.1", "127.0.0.2"], port)
        socket.create_server(("127.0.0.1", port)).close()


def test_hosts_are_separated_by_commas():
    assert ServiceSettings(host="0.0.0.0, ::").host == ("0.0.0.0", "::")


@needs_ipv6
def test_the_service_answers_at_each_host_and_names_it(one_layer_dir):
    with start_server(one_layer_dir, host="127.0.0.1,::1") as server:
        urls = [line["url"] for line in server.logged("listening")]
        assert [url.rpartition(":")[0] for url in urls] == ["http://127.0.0.1", "http://[::1]"]
        assert [httpx.get(f"{url}/healthz").status_code for url in urls] == [200, 200]
        assert server.terminate() == 0
