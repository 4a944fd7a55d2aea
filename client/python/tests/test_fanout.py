"""Binds, moves, taps, and receiving from several queues."""

import threading

import ipcd

from .daemon import DaemonTest, eventually


class BindTest(DaemonTest):
    def test_bind_hands_on_copies_by_type(self):
        a, b, _ = (
            self.create("/bind-a", type_names={"two": 2}),
            self.create("/bind-b"),
            self.create("/bind-c", max_messages=1),
        )
        a.bind("bind-b", types="two")
        a.bind("/bind-c", skip=True)
        a.send_many([ipcd.Message(b"1", type=1), ipcd.Message(b"2", type="two")])
        a.send(b"3")
        self.assertEqual([p.body for p in b.peek()], [b"2"])
        binds = {bind.destination: bind for bind in a.info().binds}
        self.assertEqual(
            (binds["/bind-b"].types, binds["/bind-b"].skip, binds["/bind-b"].copied_total), ("2", False, 1)
        )
        self.assertTrue(binds["/bind-c"].skip)
        self.assertGreater(binds["/bind-c"].skipped_total, 0)
        a.unbind("/bind-c")
        self.assertEqual([bind.destination for bind in a.info().binds], ["/bind-b"])
        with self.assertRaises(ipcd.BindCycle):
            b.bind("/bind-a")


class MoveTest(DaemonTest):
    def test_move_takes_filters(self):
        a, b = self.create("/move-a"), self.create("/move-b")
        a.send_many([ipcd.Message(str(i), type=i % 2 + 1) for i in range(6)])
        self.assertEqual(a.move("/move-b", types=1, dry_run=True), 3)
        self.assertEqual(a.move("move-b", types=1, limit=2), 2)
        self.assertEqual([p.body for p in b.peek()], [b"0", b"2"])
        self.assertEqual([p.body for p in a.peek()], [b"1", b"3", b"4", b"5"])
        self.assertEqual(a.info().stats.moved_total, 2)

    def test_redrive_sends_dead_letters_home(self):
        dead = self.create("/redrive-dead")
        q = self.create("/redrive", max_attempts=1, dead_letter_queue="/redrive-dead")
        q.send_many([b"1", b"2"])
        for d in q.receive(2):
            d.nack()
        eventually(lambda: dead.info().stats.ready == 2, "they are dead")
        self.assertEqual(dead.redrive(dry_run=True), {"/redrive": 2})
        self.assertEqual(dead.redrive(), {"/redrive": 2})
        self.assertEqual([p.body for p in q.peek()], [b"1", b"2"])

    def test_redrive_tells_what_had_to_stay(self):
        dead = self.create("/stays-dead")
        q = self.create("/stays", max_attempts=1, dead_letter_queue="/stays-dead")
        q.send(b"1")
        for d in q.receive():
            d.nack()
        eventually(lambda: dead.info().stats.ready == 1, "it is dead")
        q.delete()
        with self.assertRaises(ipcd.QueueNotFound) as caught:
            dead.redrive()
        self.assertEqual([e.queue for e in caught.exception.failures], ["/stays"])

    def test_peek_goes_by_sequence(self):
        q = self.create()
        q.send_many([ipcd.Message(b"1"), ipcd.Message(b"2", priority=5), ipcd.Message(b"3", delay=3600)])
        everything = ["ready", "delayed", "leased", "buried"]
        self.assertEqual([p.body for p in q.peek(states=everything, by_sequence=True)], [b"1", b"2", b"3"])
        self.assertEqual([p.body for p in q.peek(states=everything)], [b"2", b"1", b"3"])


class SeveralTest(DaemonTest):
    def test_receive_from_several(self):
        a, b = self.create("/several-a"), self.create("/several-b")
        self.assertEqual(self.client.receive_any([a.name, b.name]), [])
        got = []
        receiver = threading.Thread(
            target=lambda: got.extend(self.client.receive_any(["several-a", b.name], 5, wait=None))
        )
        receiver.start()
        eventually(lambda: b.info().stats.receivers == 1, "it waits")
        b.send(b"1")
        receiver.join()
        self.assertEqual([(d.queue, d.body) for d in got], [("/several-b", b"1")])
        got[0].ack()
        a.send(b"2")
        b.send(b"3")
        both = self.client.receive_any([a.name, b.name], 5, at_once=True)
        self.assertEqual(sorted((d.queue, d.body) for d in both), [("/several-a", b"2"), ("/several-b", b"3")])
        with self.assertRaises(ipcd.InvalidArgument):
            self.client.receive_any([])


class TapTest(DaemonTest):
    def test_tap_shows_what_arrives_whoever_consumes_it(self):
        q = self.create()
        q.send(b"before")
        with q.tap(types="not:9", max_body_bytes=3) as tap:
            q.send_many([ipcd.Message(b"12345", type=7), ipcd.Message(type=9), ipcd.Message(b"2")])
            q.receive(9, at_once=True)
            first, second = next(tap), next(tap)
        self.assertEqual((first.body, first.type, first.truncated_from), (b"123", 7, 5))
        self.assertEqual((second.body, tap.skipped), (b"2", 0))
        eventually(lambda: q.info().stats.taps == 0, "it is closed")

    def test_tap_ends_with_its_queue(self):
        q = self.create()
        with self.assertRaises(ipcd.QueueDeleted):
            with q.tap() as tap:
                q.delete()
                next(tap)

    def test_missing_queue_is_told_at_once(self):
        with self.assertRaises(ipcd.QueueNotFound):
            self.client.queue("/missing").tap()
