from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from host_stub.vsock import device, hybrid, messages, packet
from host_stub.vsock.messages import Ask
from host_stub.vsock.traffic import PATIENCE_S
from tests.unit.host_stub.vsock.driver import CID, QUEUE_SIZE, Bench, Monitor, is_closed, ops

# -- from the host to the guest ---------------------------------------------------------------------------------------


def test_host_reaches_a_port_of_the_guest(bench: Bench) -> None:
    client, host_port = bench.open_to_guest(5005)
    client.send(b"hello")
    ((header, data),) = bench.packets()
    assert (header.op, header.src_port, header.dst_port, data) == (packet.RW, host_port, 5005, b"hello")
    assert (header.src_cid, header.dst_cid) == (2, CID)
    bench.guest.send(5005, host_port, packet.RW, b"hello yourself")
    bench.settle()
    assert client.recv(100) == b"hello yourself"


def test_what_a_client_sends_behind_its_line_is_the_guests(bench: Bench) -> None:
    client = bench.client()
    client.send(b"CONNECT 5005\nearly")
    ((request, _),) = bench.packets()
    bench.guest.send(5005, request.src_port, packet.RESPONSE)
    ((header, data),) = bench.packets()
    assert (header.op, data) == (packet.RW, b"early")


def test_a_line_may_come_in_pieces(bench: Bench) -> None:
    client = bench.client()
    for piece in (b"CONN", b"ECT 50", b"05", b"\n"):
        assert bench.packets() == []
        client.send(piece)
    assert ops(bench.packets()) == [packet.REQUEST]


def test_a_port_nobody_listens_on_closes_the_client_without_ok(bench: Bench) -> None:
    client = bench.client(5005)
    ((request, _),) = bench.packets()
    bench.guest.send(5005, request.src_port, packet.RST)
    bench.settle()
    assert is_closed(client)
    assert bench.server.traffic.connections == 0


def test_a_guest_that_does_not_answer_is_given_up(bench: Bench) -> None:
    client = bench.client(5005)
    assert ops(bench.packets()) == [packet.REQUEST]
    bench.clock.now += PATIENCE_S - 0.1
    bench.settle()
    assert not is_closed(client)
    bench.clock.now += 0.2
    assert ops(bench.packets()) == [packet.RST]
    assert is_closed(client)


def test_without_a_guest_a_client_is_closed_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, start=False)
    client = bench.client(5005)
    assert is_closed(client)
    bench.close()


@pytest.mark.parametrize(
    "line", [b"HELLO 5005\n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"C" * 65, b"\n", bytes(80)]
)
def test_junk_closes_the_client(bench: Bench, line: bytes) -> None:
    client = bench.client()
    client.send(line)
    bench.settle()
    assert is_closed(client)
    assert bench.packets() == []


def test_a_silent_client_is_closed_after_a_while(bench: Bench) -> None:
    client = bench.client()
    bench.settle()
    client.send(b"CONN")
    bench.clock.now += hybrid.HANDSHAKE_S + 1
    bench.settle()
    assert is_closed(client)


def test_a_thousand_silent_clients_keep_nobody_out(bench: Bench) -> None:
    silent = []
    for _ in range(1000):
        silent.append(bench.client())
        bench.settle()
    assert sum(map(is_closed, silent)) == 1000 - hybrid.HANDSHAKE_LIMIT
    bench.open_to_guest()


# -- from the guest to the host ---------------------------------------------------------------------------------------


def test_guest_reaches_what_listens_on_the_host(bench: Bench) -> None:
    service = bench.service(5006)
    host = bench.open_to_host(service, 5006)
    bench.guest.send(4000, 5006, packet.RW, b"GET /")
    bench.settle()
    assert host.recv(100) == b"GET /"
    host.send(b"200")
    ((header, data),) = bench.packets()
    assert (header.op, header.src_port, header.dst_port, data) == (packet.RW, 5006, 4000, b"200")


def test_a_port_without_a_listener_is_reset(bench: Bench) -> None:
    bench.guest.send(4000, 5006, packet.REQUEST)
    ((header, _),) = bench.packets()
    assert (header.op, header.src_port, header.dst_port) == (packet.RST, 5006, 4000)


def test_ports_that_are_not_allowed_are_reset(tmp_path: Path) -> None:
    bench = Bench(tmp_path, allowed_ports=frozenset({5006}))
    bench.service(5007)
    bench.guest.send(4000, 5007, packet.REQUEST)
    assert ops(bench.packets()) == [packet.RST]
    bench.open_to_host(bench.service(5006), 5006)
    bench.close()


def test_other_cids_than_the_hosts_are_reset(bench: Bench) -> None:
    bench.service(5006)
    bench.guest.send(4000, 5006, packet.REQUEST, dst_cid=1)
    ((header, _),) = bench.packets()
    assert (header.op, header.src_cid, header.dst_cid) == (packet.RST, 1, CID)


def test_a_packet_with_a_cid_not_its_own_is_dropped(bench: Bench) -> None:
    bench.service(5006)
    bench.guest.send(4000, 5006, packet.REQUEST, src_cid=CID + 1)
    assert bench.packets() == []
    assert bench.server.traffic.dropped == 1


def test_a_socket_of_datagrams_or_packets_is_reset_in_kind(bench: Bench) -> None:
    bench.service(5006)
    bench.guest.send(4000, 5006, packet.REQUEST, type=2)
    ((header, _),) = bench.packets()
    assert (header.op, header.type) == (packet.RST, 2)


def test_a_reset_is_never_answered(bench: Bench) -> None:
    bench.guest.send(4000, 5006, packet.RST)
    bench.guest.send(4000, 5006, packet.RST, dst_cid=9)
    assert bench.packets() == []


def test_too_short_a_packet_is_dropped(bench: Bench) -> None:
    tx = bench.guest.tx
    tx.offer([(tx.buffers, packet.SIZE - 1)], 0)
    tx.kick()
    assert bench.packets() == []
    assert bench.server.traffic.dropped == 1
    assert [written for _, written in tx.collect()] == [0]


# -- ends of all kinds ------------------------------------------------------------------------------------------------


def test_guest_half_closes_and_is_still_answered(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, packet.RW, b"question")
    bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.SENDS_NO_MORE)
    bench.settle()
    assert (client.recv(100), client.recv(100)) == (b"question", b"")
    client.send(b"answer")
    assert [data for _, data in bench.packets()] == [b"answer"]


def test_host_half_closes_and_is_still_answered(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    client.send(b"question")
    client.shutdown(socket.SHUT_WR)
    packets = bench.packets()
    assert ops(packets) == [packet.RW, packet.SHUTDOWN]
    assert packets[1][0].flags == packet.SENDS_NO_MORE
    bench.guest.send(5005, host_port, packet.RW, b"answer")
    bench.settle()
    assert client.recv(100) == b"answer"
    bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.DONE)
    assert ops(bench.packets()) == [packet.RST]
    assert is_closed(client)


def test_a_guest_that_receives_no_more_breaks_the_hosts_pipe(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.RECEIVES_NO_MORE)
    bench.settle()
    with pytest.raises(BrokenPipeError):
        client.send(b"x")


def test_a_host_that_is_gone_ends_both_directions(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    client.send(b"last words")
    client.close()
    packets = bench.packets()
    assert ops(packets)[-2:] != [packet.RST, packet.RST]
    assert b"".join(data for _, data in packets) == b"last words"
    assert packets[-1][0].op == packet.SHUTDOWN
    assert packets[-1][0].flags == packet.DONE
    bench.guest.send(5005, host_port, packet.RST)
    bench.settle()
    assert bench.server.traffic.connections == 0


def test_a_guest_that_takes_no_leave_is_reset(bench: Bench) -> None:
    client, _ = bench.open_to_guest()
    client.close()
    assert ops(bench.packets())[-1] == packet.SHUTDOWN
    bench.clock.now += PATIENCE_S + 1
    assert ops(bench.packets()) == [packet.RST]
    assert bench.server.traffic.connections == 0


def test_what_a_guest_sent_before_it_left_is_still_delivered(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    sent = b""
    for number in range(48):
        piece = bytes([number]) * 4096
        bench.guest.send(5005, host_port, packet.RW, piece)
        bench.settle()
        sent += piece
    bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.DONE)
    assert packet.RST in ops(bench.packets())
    got = b""
    while len(got) < len(sent):
        got += client.recv(1 << 16)
        bench.settle()
    assert got == sent
    assert is_closed(client)
    assert bench.server.traffic.connections == 0


def test_a_second_shutdown_changes_nothing(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    for _ in range(2):
        bench.guest.send(5005, host_port, packet.SHUTDOWN, flags=packet.SENDS_NO_MORE)
    assert bench.packets() == []
    client.send(b"still here")
    assert [data for _, data in bench.packets()] == [b"still here"]


# -- many -------------------------------------------------------------------------------------------------------------


def test_connections_are_limited_and_come_free_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_stub.vsock.traffic.CONNECTION_LIMIT", 3)
    joined = [bench.open_to_guest() for _ in range(3)]
    assert is_closed(bench.client(5005))
    bench.guest.send(5005, joined[0][1], packet.RST)
    bench.settle()
    bench.open_to_guest()


def test_talkers_take_turns(bench: Bench) -> None:
    talkers = [bench.open_to_guest()[0] for _ in range(3)]
    for talker in talkers:
        talker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        talker.send(bytes(100_000))
    first: list[int] = []
    while packets := bench.packets():
        first += [header.src_port for header, data in packets if data]
    # Nobody has two turns of 64 KiB before everybody has had one.
    seen = [first.index(port) for port in dict.fromkeys(first)]
    assert len(seen) == 3
    assert seen[-1] * 4096 <= 3 * 64 * 1024


# -- broken queues ----------------------------------------------------------------------------------------------------


def test_a_broken_queue_ends_connections_and_tells_the_monitor(bench: Bench) -> None:
    client, _ = bench.open_to_guest()
    tx = bench.guest.tx
    tx.describe(tx.free[0], 0xDEAD_0000_0000, 100)
    tx.expose(tx.free[0])
    tx.kick()
    bench.settle()
    assert is_closed(client)
    assert tx.failed()
    assert "is not in the guest's memory" in bench.said[-1]
    assert is_closed(bench.client(5005))


def test_a_broken_queue_works_again_once_it_is_set_up_anew(bench: Bench) -> None:
    bench.guest.tx.expose(QUEUE_SIZE)
    bench.guest.tx.kick()
    bench.settle()
    fresh = type(bench.guest)(event_idx=bench.guest.event_idx)
    for index in (0, 1):
        bench.monitor.ask(Ask.GET_VRING_BASE, struct.pack("=II", index, 0))
    bench.settle()
    bench.guest.close()
    bench.guest = fresh
    bench.monitor.start(fresh)
    bench.settle()
    fresh.refill()
    bench.open_to_guest()


# -- the machine monitor ----------------------------------------------------------------------------------------------


def stop_and_go_on(bench: Bench, *, shift: int = 0) -> None:
    """What QEMU does for `stop` and `cont`."""
    bases = []
    for index in (0, 1):
        bench.monitor.ask(Ask.GET_VRING_BASE, struct.pack("=II", index, 0))
        bench.settle()
        reply = bench.monitor.reply()
        assert reply is not None
        bases.append(struct.unpack("=II", reply[1])[1])
    for index in (0, 1):
        queue = bench.guest.queues[index]
        bench.monitor.ask(Ask.SET_VRING_BASE, struct.pack("=II", index, bases[index] + shift & 0xFFFF))
        bench.monitor.ask(Ask.SET_VRING_KICK, messages.compose_u64(index), [queue.kick_fd])
    bench.settle()


def test_a_paused_machine_keeps_its_connections(bench: Bench) -> None:
    client, host_port = bench.open_to_guest()
    stop_and_go_on(bench)
    bench.guest.send(5005, host_port, packet.RW, b"where was I")
    bench.settle()
    assert client.recv(100) == b"where was I"


def test_a_machine_that_goes_on_elsewhere_has_lost_them(bench: Bench) -> None:
    client, _ = bench.open_to_guest()
    stop_and_go_on(bench, shift=-1)
    assert is_closed(client)


def test_a_restored_clone_is_told_by_its_event_queue(tmp_path: Path) -> None:
    bench = Bench(tmp_path, start=False)
    events = bench.guest.events
    for queue in bench.guest.queues:
        queue.offered = queue.seen = 1
        queue.word(queue.available + 2, 1)
        queue.word(queue.used + 2, 1)
    events.offer([(events.buffers, 4)], 2)
    bench.guest.memory[events.buffers : events.buffers + 4] = b"\xff" * 4
    bench.monitor.start(bench.guest, queues=(0, 1, 2), base=1)
    bench.settle()
    assert [written for _, written in events.collect()] == [4]
    assert bytes(bench.guest.memory[events.buffers : events.buffers + 4]) == packet.TRANSPORT_RESET
    assert events.called()
    bench.close()


def test_a_clone_that_broke_its_event_queue_has_lost_that_queue_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, start=False)
    for queue in bench.guest.queues:
        queue.offered = queue.seen = 1
        queue.word(queue.available + 2, 1)
        queue.word(queue.used + 2, 1)
    bench.guest.events.word(bench.guest.events.available + 2, QUEUE_SIZE + 7)
    bench.monitor.start(bench.guest, queues=(2, 0, 1), base=1)
    bench.settle()
    assert "the guest broke its event queue" in bench.said[-1]
    assert bench.guest.events.failed()
    bench.guest.refill()
    bench.open_to_guest()
    bench.close()


def test_a_second_monitor_is_turned_away_while_one_is_there(bench: Bench) -> None:
    other = Monitor(bench.monitor_path)
    bench.settle()
    with pytest.raises(EOFError):
        other.reply()
    other.close()
    bench.open_to_guest()


def test_a_monitor_may_leave_and_come_again(bench: Bench) -> None:
    client, _ = bench.open_to_guest()
    bench.monitor.close()
    bench.settle()
    assert is_closed(client)
    assert is_closed(bench.client(5005))
    bench.monitor = Monitor(bench.monitor_path)
    bench.guest.close()
    bench.guest = type(bench.guest)(event_idx=bench.guest.event_idx)
    bench.monitor.start(bench.guest)
    bench.settle()
    bench.guest.refill()
    bench.open_to_guest()


def test_a_monitor_that_breaks_the_protocol_is_dropped_with_the_reason(bench: Bench) -> None:
    bench.monitor.ask(Ask.SET_FEATURES, messages.compose_u64(1 << 26))
    bench.settle()
    with pytest.raises(EOFError):
        bench.monitor.reply()
    assert "0x4000000 were not offered" in bench.said[-1]


def test_a_kick_that_epoll_does_not_watch_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, start=False)
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    bench.monitor.ask(Ask.SET_VRING_KICK, messages.compose_u64(0), [plain])
    os.close(plain)
    bench.settle()
    with pytest.raises(EOFError):
        bench.monitor.reply()
    assert "cannot be kicked" in bench.said[-1]
    bench.close()


def test_disabled_rings_do_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.monitor.ask(Ask.SET_VRING_ENABLE, struct.pack("=II", 1, 0))
    bench.settle()
    bench.guest.send(4000, 9, packet.REQUEST)
    assert bench.packets() == []
    bench.monitor.ask(Ask.SET_VRING_ENABLE, struct.pack("=II", 1, 1))
    assert ops(bench.packets()) == [packet.RST]
    bench.close()


def test_descriptors_are_all_closed_in_the_end(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    bench = Bench(tmp_path)
    client, _ = bench.open_to_guest()
    bench.client()
    bench.monitor.ask(Ask.SET_BACKEND_REQ_FD, messages.compose_u64(0), [client.fileno()])
    bench.settle()
    bench.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_out_of_descriptors_the_server_waits_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bench.client()
    with monkeypatch.context() as broken:
        broken.setattr("host_stub.vsock.server._accept", fail_to_accept)
        bench.settle()
    assert "nobody can be accepted" in bench.said[-1]
    assert bench.settle() == 0
    client.send(b"CONNECT 5005\n")
    bench.clock.now += 1
    bench.settle()
    assert ops(bench.packets()) == [packet.REQUEST]


def fail_to_accept(_: socket.socket) -> socket.socket:
    raise OSError(24, "Too many open files")


def test_features_offered_are_the_ones_that_work() -> None:
    assert device.FEATURES == 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32
