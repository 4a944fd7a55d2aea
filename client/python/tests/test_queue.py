"""Sending, receiving, settling and looking."""

import threading
from datetime import datetime, timedelta, timezone

import ipcd

from .daemon import DaemonTest, eventually


class SendTest(DaemonTest):
    def test_message_arrives_as_it_was_sent(self):
        q = self.create()
        sent = q.send(
            b"\x00body",
            type=7,
            priority=5,
            headers={"a": b"\xff", "b": "text"},
            ttl=timedelta(minutes=1),
            correlation_id="c",
            reply_to="answers",
            content_type="text/plain",
            dedup_id="d",
        )
        (d,) = q.receive()
        self.assertEqual(
            (d.body, d.type, d.priority, d.headers, d.ttl), (b"\x00body", 7, 5, {"a": b"\xff", "b": b"text"}, 60)
        )
        self.assertEqual((d.correlation_id, d.reply_to, d.content_type), ("c", "/answers", "text/plain"))
        self.assertEqual((d.queue, d.sequence, d.attempts), (q.name, sent.sequence, 0))
        self.assertEqual(d.sent_at, sent.sent_at)
        self.assertEqual((d.lease_expires - d.sent_at).total_seconds() // 10, 3)

    def test_batch_is_all_or_nothing(self):
        q = self.create(max_messages=2)
        with self.assertRaises(ipcd.QueueFull):
            q.send_many([b"1", b"2", b"3"])
        self.assertEqual(q.info().stats.messages, 0)
        self.assertEqual([s.duplicate for s in q.send_many([b"1", ipcd.Message("2", type=2)])], [False, False])
        self.assertEqual([(p.body, p.type) for p in q.peek()], [(b"1", 1), (b"2", 2)])

    def test_error_names_the_message_of_the_batch(self):
        q = self.create(max_message_size=4)
        with self.assertRaises(ipcd.MessageTooLarge) as caught:
            q.send_many([b"1234", b"12345"])
        self.assertEqual((caught.exception.index, caught.exception.queue), (1, q.name))
        with self.assertRaises(ipcd.InvalidArgument) as caught:
            q.send_many([b"", ipcd.Message(priority=-1)])
        self.assertEqual(caught.exception.index, 1)

    def test_dedup_id_is_stored_once(self):
        q = self.create()
        first = q.send(b"1", dedup_id="x")
        again = q.send_many([b"0", ipcd.Message(b"1", dedup_id="x"), b"2"])
        self.assertEqual([s.duplicate for s in again], [False, True, False])
        self.assertEqual(again[1].sequence, first.sequence)
        self.assertEqual([s.sequence for s in again[::2]], [p.sequence for p in q.peek()][1:])

    def test_delays_count(self):
        q = self.create()
        q.send(b"1", delay=3600)
        q.send(b"2", not_before=datetime.now(timezone.utc) + timedelta(hours=1))
        self.assertEqual(q.receive(2), [])
        self.assertEqual(len(list(q.peek(states="delayed"))), 2)

    def test_full_queue_that_blocks_lets_senders_wait(self):
        q = self.create(max_messages=1, overflow="block")
        q.send(b"1")
        with self.assertRaises(ipcd.TimedOut):
            q.send(b"2", timeout=4)
        sender = threading.Thread(target=q.send, args=(b"3",))
        sender.start()
        eventually(lambda: q.info().stats.blocked_senders == 1, "the sender waits")
        self.assertEqual([d.body for d in q.receive(2, at_once=True)], [b"1"])
        sender.join()
        self.assertEqual([d.body for d in q.receive(2, at_once=True)], [b"3"])

    def test_what_is_no_message_is_refused_before_it_is_sent(self):
        q = self.create()
        for bad in (
            dict(body=7),
            dict(type=0),
            dict(type=2**63),
            dict(type=True),
            dict(priority="high"),
            dict(ttl=-1),
            dict(ttl="1h"),
            dict(delay=float("nan")),
            dict(headers={"a": 1}),
            dict(not_before=datetime.now()),
            dict(delay=1, not_before=datetime.now(timezone.utc)),
            dict(headers={"\ud800": b""}),
        ):
            with self.subTest(bad), self.assertRaises(ipcd.InvalidArgument):
                q.send(**bad)
        with self.assertRaises(TypeError):
            q.send(b"", prio=7)
        self.assertEqual(q.info().stats.messages, 0)

    def test_threads_share_a_client(self):
        q = self.create()
        threads = [
            threading.Thread(target=lambda i=i: [q.send(str(i), type=i) for _ in range(20)]) for i in range(1, 9)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        got = sorted(d.type for d in q.receive(1000, at_once=True))
        self.assertEqual(got, sorted(list(range(1, 9)) * 20))


class ReceiveTest(DaemonTest):
    def test_types_choose(self):
        cases = {
            "7": [7],
            7: [7],
            ipcd.of_type(7): [7],
            "upto:8": [7],
            "<=8": [7],
            ipcd.upto(9): [7, 9, 9],
            "not:7": [9, 9],
            ipcd.not_type("seven"): [9, 9],
            "seven": [7],
            "not:seven": [9, 9],
            "7,9": [7, 9, 9],
            (7, "9"): [7, 9, 9],
            ipcd.one_of("seven", 8): [7],
            "any": [7, 9, 9],
            ipcd.ANY: [7, 9, 9],
            None: [7, 9, 9],
        }
        q = self.create(type_names={"seven": 7})
        q.send_many([ipcd.Message(type=9), ipcd.Message(type="seven"), ipcd.Message(type=9)])
        for types, want in cases.items():
            with self.subTest(types=types):
                got = q.receive(9, types=types)
                self.assertEqual(sorted(d.type for d in got), want)
                for d in got:
                    d.release()

    def test_unknown_type_name_tells_the_names(self):
        q = self.create(type_names={"seven": 7})
        with self.assertRaisesRegex(ipcd.InvalidArgument, "'sevn'.*seven"):
            q.send(b"", type="sevn")
        with self.assertRaisesRegex(ipcd.InvalidArgument, "'sevn'.*seven"):
            q.receive(types="not:sevn")

    def test_type_names_follow_an_update(self):
        q = self.create(type_names={"a": 7})
        q.send(b"", type="a")
        q.update(type_names={"a": 8})
        q.send(b"", type="a")
        self.assertEqual([p.type for p in q.peek()], [7, 8])

    def test_receive_waits_for_a_message(self):
        q = self.create()
        got = []
        receiver = threading.Thread(target=lambda: got.extend(q.receive(5, wait=None)))
        receiver.start()
        eventually(lambda: q.info().stats.receivers == 1, "the receiver waits")
        q.send(b"1")
        receiver.join()
        self.assertEqual([d.body for d in got], [b"1"])
        self.assertEqual(q.receive(wait=0.01), [])

    def test_buffer(self):
        q = self.create()
        q.send(b"12345")
        with self.assertRaises(ipcd.BufferTooSmall):
            q.receive(max_body_bytes=4)
        (d,) = q.receive(max_body_bytes=4, truncate=True)
        self.assertEqual((d.body, d.truncated_from), (b"1234", 5))

    def test_what_was_consumed_at_once_cannot_be_settled(self):
        q = self.create()
        q.send(b"1")
        (d,) = q.receive(at_once=True)
        self.assertEqual((d.receipt, d.lease_expires), ("", None))
        with d:
            pass
        with self.assertRaises(ipcd.InvalidArgument):
            d.ack()

    def test_bad_arguments_are_refused(self):
        q = self.create()
        for bad in (
            dict(n=0),
            dict(n=1 << 20),
            dict(wait=-1),
            dict(wait="5"),
            dict(types=0),
            dict(types=[]),
            dict(types=b"7"),
        ):
            with self.subTest(bad), self.assertRaises(ipcd.InvalidArgument):
                q.receive(**bad)


class SettleTest(DaemonTest):
    def lease(self, **settings):
        q = self.create(**settings)
        q.send(b"1")
        (d,) = q.receive()
        return q, d

    def test_ack_removes(self):
        q, d = self.lease()
        d.ack()
        self.assertEqual(q.info().stats.messages, 0)
        for again in (d.ack, d.nack, d.release, d.bury, d.touch):
            with self.assertRaises(ipcd.StaleReceipt) as caught:
                again()
            self.assertEqual((caught.exception.reason, caught.exception.index), ("STALE_RECEIPT", None))

    def test_nack_counts_and_release_does_not(self):
        q, d = self.lease()
        d.nack(delay=0)
        (d,) = q.receive()
        self.assertEqual(d.attempts, 1)
        d.release()
        (d,) = q.receive()
        self.assertEqual(d.attempts, 1)
        d.nack(delay=timedelta(hours=1))
        self.assertEqual([p.attempts for p in q.peek(states="delayed")], [2])

    def test_touch_prolongs(self):
        _, d = self.lease()
        before = d.lease_expires
        self.assertGreater(d.touch(3600), before + timedelta(minutes=30))
        self.assertGreater(d.lease_expires, before + timedelta(minutes=30))

    def test_bury_sets_aside_until_kicked(self):
        q, d = self.lease()
        d.bury("broken")
        self.assertEqual([p.bury_reason for p in q.peek(states=["buried"])], ["broken"])
        self.assertEqual(q.kick(), 1)
        self.assertEqual(len(q.receive()), 1)

    def test_block_acks_at_its_end(self):
        q, d = self.lease()
        with d:
            pass
        self.assertEqual(q.info().stats.consumed_total, 1)

    def test_block_that_raises_nacks_with_the_reason(self):
        q, d = self.lease(max_attempts=1)
        with self.assertRaisesRegex(ValueError, "bad"):
            with d:
                raise ValueError("bad " + "\u00e4" * 300)
        (p,) = q.peek(states="buried")
        self.assertIn("ValueError: bad \u00e4", p.bury_reason)

    def test_block_that_was_interrupted_counts_no_attempt(self):
        q, d = self.lease()
        with self.assertRaises(KeyboardInterrupt):
            with d:
                raise KeyboardInterrupt
        self.assertEqual([p.attempts for p in q.peek()], [0])

    def test_block_may_settle_by_itself(self):
        q, d = self.lease()
        with d:
            d.nack(delay=3600)
        self.assertEqual(len(list(q.peek(states="delayed"))), 1)

    def test_many_are_acked_in_one_call(self):
        q = self.create()
        q.send_many([b"1", b"2", b"3"])
        all = q.receive(3)
        all[1].release()
        with self.assertRaises(ipcd.StaleReceipt) as caught:
            self.client.ack(all)
        self.assertEqual([e.index for e in caught.exception.failures], [1])
        self.assertEqual([p.body for p in q.peek(states=["ready", "leased"])], [b"2"])

    def test_delivery_can_be_settled_through_a_fresh_client(self):
        _, d = self.lease()
        with ipcd.connect(self.daemon.address) as other:
            other.ack([d])
        with self.assertRaises(ipcd.StaleReceipt):
            d.ack()


class PeekTest(DaemonTest):
    def test_peek_shows_and_changes_nothing(self):
        q = self.create()
        q.send_many([ipcd.Message(str(i), type=i, headers={"h": str(i % 2)}) for i in range(1, 7)])
        (d,) = q.receive()
        self.assertEqual([p.type for p in q.peek()], [2, 3, 4, 5, 6])
        self.assertEqual([p.type for p in q.peek(limit=2)], [2, 3])
        self.assertEqual([p.type for p in q.peek(types="2,5", headers={"h": "1"})], [5])
        self.assertEqual([p.type for p in q.peek(min_sequence=3, max_sequence=4)], [3, 4])
        self.assertEqual([p.type for p in q.peek(older_than=3600)], [])
        self.assertEqual([(p.state, p.sequence) for p in q.peek(states="leased")], [("leased", d.sequence)])
        self.assertEqual([p.truncated_from for p in q.peek(max_body_bytes=0, limit=1)], [0])
        self.assertEqual(q.info().stats.ready, 5)

    def test_peek_follows_until_it_is_left(self):
        q = self.create()
        q.send(b"1")
        seen = []
        for p in q.peek(follow=True):
            seen.append(p.body)
            if len(seen) == 3:
                break
            q.send(str(len(seen) + 1))
        self.assertEqual(seen, [b"1", b"2", b"3"])

    def test_unknown_filters_are_refused(self):
        q = self.create()
        with self.assertRaisesRegex(TypeError, "stats"):
            next(q.peek(stats="ready"))
        with self.assertRaisesRegex(ipcd.InvalidArgument, "ready, delayed"):
            q.purge(states="gone")
