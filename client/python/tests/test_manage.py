"""Making, changing and removing queues; transactions."""

import unittest

import ipcd

from .daemon import DaemonTest


class ManageTest(DaemonTest):
    def test_settings_are_as_declared(self):
        self.create("/manage-dead")
        want = dict(
            max_messages=10,
            max_bytes=1 << 20,
            max_message_size=1024,
            lease=5.5,
            max_attempts=3,
            dead_letter_queue="/manage-dead",
            dead_letter_expired=True,
            max_dedup_ids=100,
            dedup_window=60.0,
            mode=0o660,
            overflow="drop-oldest",
            durability="journal",
            mqueue="none",
            backoff_initial=1.0,
            backoff_max=8.0,
            type_names={"created": 7},
        )
        q = self.create(**want)
        info = q.info()
        self.assertEqual({name: info.settings[name] for name in want}, want)
        self.assertEqual((info.name, info.paused, info.temporary), (q.name, False, False))

    def test_same_settings_are_the_same_queue(self):
        q = self.create("/manage-same", lease=7)
        self.assertEqual(self.create("/manage-same", lease=7).name, q.name)
        with self.assertRaises(ipcd.QueueExists):
            self.create("/manage-same", lease=8)
        with self.assertRaises(ipcd.QueueExists):
            self.create("/manage-same", lease=7, exclusive=True)

    def test_update_changes_what_it_names(self):
        q = self.create(lease=7, max_attempts=3, backoff_initial=1, backoff_max=2)
        info = q.update(lease=None, backoff_max=4, overflow="block", mqueue=None)
        self.assertEqual(
            [info.settings[n] for n in ("lease", "max_attempts", "backoff_initial", "backoff_max", "overflow")],
            [30, 3, 1, 4, "block"],
        )

    def test_bad_settings_are_refused(self):
        for bad in (
            dict(lese=5),
            dict(overflow="explode"),
            dict(max_messages="many"),
            dict(lease=-1),
            dict(type_names=7),
            dict(type_names={"a": "b"}),
            dict(mode=-1),
        ):
            with self.subTest(bad), self.assertRaises(ipcd.InvalidArgument):
                self.create(**bad)
        for bad in ("", "/", 7, None):
            with self.subTest(bad), self.assertRaises(ipcd.InvalidArgument):
                self.client.queue(bad)
        with self.assertRaises(ipcd.InvalidArgument):
            self.client.create_queue("/no/slashes")

    def test_queues_are_listed_by_pattern(self):
        for name in ("list-b", "list-a", "other-list"):
            self.create(name)
        self.assertEqual([q.name for q in self.client.queues("list-*")], ["/list-a", "/list-b"])
        self.assertIn("/other-list", [q.name for q in self.client.queues()])

    def test_pause_stops_deliveries_not_sends(self):
        q = self.create()
        q.pause()
        q.send(b"1")
        self.assertTrue(q.info().paused)
        self.assertEqual(q.receive(), [])
        q.resume()
        self.assertEqual(len(q.receive()), 1)

    def test_purge_takes_filters(self):
        q = self.create()
        q.send_many([ipcd.Message(type=t) for t in (1, 2, 1, 2, 1)])
        self.assertEqual(q.purge(types=1, dry_run=True), 3)
        self.assertEqual(q.purge(types=1, limit=2), 2)
        self.assertEqual([p.type for p in q.peek()], [2, 2, 1])
        self.assertEqual(q.purge(), 3)

    def test_delete_tells_what_went(self):
        q = self.create()
        q.send_many([b"1", b"2"])
        self.assertEqual(q.delete(), 2)
        with self.assertRaises(ipcd.NotFound):
            q.info()

    def test_info_of_the_daemon(self):
        info = self.client.info()
        self.assertTrue(info["instance"])
        self.assertIn("unix://" + self.daemon.address, info["addresses"])


class TransactionTest(DaemonTest):
    def test_transaction_does_all_or_nothing(self):
        a, b = self.create("/tx-a"), self.create("/tx-b", max_messages=2)
        a.send(b"order")
        (d,) = a.receive()
        with self.client.transaction() as tx:
            tx.send("tx-b", b"invoice", type=2)
            tx.send_many("/tx-b", [b"x"])
            tx.ack(d)
        self.assertEqual([s.sequence for s in tx.sent], [p.sequence for p in b.peek()])
        self.assertEqual(a.info().stats.messages, 0)
        a.send(b"order")
        (d,) = a.receive()
        with self.assertRaises(ipcd.QueueFull) as caught:
            with self.client.transaction() as tx:
                tx.ack(d)
                tx.send("/tx-b", b"invoice")
        self.assertEqual(caught.exception.index, 0)
        d.ack()

    def test_block_that_raises_does_nothing(self):
        q = self.create()
        with self.assertRaises(ZeroDivisionError):
            with self.client.transaction() as tx:
                tx.send(q.name, b"1")
                1 / 0
        self.assertEqual(q.info().stats.sent_total, 0)

    def test_stale_receipt_refuses_all(self):
        q = self.create()
        q.send(b"1")
        (d,) = q.receive()
        d.release()
        with self.assertRaises(ipcd.StaleReceipt) as caught:
            with self.client.transaction() as tx:
                tx.send(q.name, b"2")
                tx.ack(d)
        self.assertEqual(caught.exception.index, 1)
        self.assertEqual(q.info().stats.sent_total, 1)

    def test_delivery_acked_so_is_settled_for_its_block(self):
        q = self.create()
        q.send(b"1")
        for d in q.receive():
            with d:
                with self.client.transaction() as tx:
                    tx.ack(d)
        self.assertEqual(q.info().stats.consumed_total, 1)


if __name__ == "__main__":
    unittest.main()
