import socket

import pytest

from local.errors import PortInUseError
from local.ports import PortUse, answers, free_port, is_free, require_free


def test_a_port_in_use_is_named_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUseError) as refused:
            require_free([PortUse(port, "Admin API", "ADMIN_API_PORT")])
    assert str(refused.value) == (f"Port {port} (Admin API) is in use. Stop what uses it or set ADMIN_API_PORT.")


def test_one_port_for_two_uses_is_refused() -> None:
    port = free_port()
    with pytest.raises(PortInUseError, match="both Kafka and Postgres"):
        require_free([PortUse(port, "Kafka", "A"), PortUse(port, "Postgres", "B")])


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert is_free(port)
    assert not answers(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert answers(port)
