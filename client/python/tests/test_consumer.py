"""Consuming, and ending it."""

import signal
import threading

import ipcd

from .daemon import DaemonTest, Proxy, eventually


class ConsumerTest(DaemonTest):
    def test_iterates_over_messages_as_they_come(self):
        q = self.create()
        seen = []
        with q.consumer() as deliveries:
            q.send_many([b"0", b"1"])
            for d in deliveries:
                with d:
                    seen.append(d.body)
                if len(seen) == 2:
                    q.send(b"2")
                if len(seen) == 3:
                    break
        self.assertEqual(seen, [b"0", b"1", b"2"])
        self.assertEqual(q.info().stats.consumed_total, 3)

    def test_end_gives_back_what_nobody_has_settled_without_counting(self):
        q = self.create()
        q.send_many([str(i) for i in range(10)])
        with q.consumer(prefetch=5) as deliveries:
            next(deliveries).ack()
            next(deliveries)
            eventually(lambda: q.info().stats.leased >= 4, "more were delivered")
        self.assertEqual([(p.body, p.attempts) for p in q.peek()], [(str(i).encode(), 0) for i in range(1, 10)])
        self.assertEqual(q.info().stats.receivers, 0)

    def test_stop_gives_back_what_nobody_has_begun_and_leaves_the_rest(self):
        q = self.create()
        q.send_many([str(i) for i in range(5)])
        with q.consumer() as deliveries:
            held = next(deliveries)
            deliveries.stop()
            self.assertEqual(list(deliveries), [])
            eventually(lambda: q.info().stats.ready == 4, "the rest is back")
            held.ack()
        self.assertEqual((q.info().stats.consumed_total, q.info().stats.ready), (1, 4))

    def test_what_a_transaction_acked_makes_room_for_more(self):
        q = self.create()
        q.send_many([b"1", b"2"])
        with q.consumer(prefetch=1, lease=3600) as deliveries:
            first = next(deliveries)
            with self.client.transaction() as tx:
                tx.ack(first)
            self.assertEqual(deliveries.get(timeout=60).body, b"2")

    def test_at_most_prefetch_are_unsettled(self):
        q = self.create()
        q.send_many([str(i) for i in range(10)])
        with q.consumer(prefetch=3) as deliveries:
            held = [next(deliveries) for _ in range(3)]
            self.assertEqual(q.info().stats.leased, 3)
            for d in held:
                d.ack()
            self.assertEqual(next(deliveries).body, b"3")

    def test_leases_are_prolonged_while_deliveries_are_held(self):
        q = self.create(lease=3)
        q.send(b"1")
        with q.consumer() as deliveries:
            d = next(deliveries)
            first = d.lease_expires
            eventually(lambda: d.lease_expires > first and (d.lease_expires - first).total_seconds() > 0.5, "prolonged")
            d.ack()
        self.assertEqual((q.info().stats.consumed_total, q.info().stats.lease_expired_total), (1, 0))

    def test_types_choose(self):
        q = self.create(type_names={"two": 2})
        q.send_many([ipcd.Message(type=1), ipcd.Message(type=2)])
        with q.consumer(types="two") as deliveries:
            self.assertEqual(next(deliveries).type, 2)
            self.assertIsNone(deliveries.get(timeout=0.01))

    def test_delivery_settles_in_all_ways(self):
        q = self.create()
        q.send_many([b"ack", b"nack", b"bury", b"release"])
        with q.consumer() as deliveries:
            got = {d.body: d for d in (next(deliveries) for _ in range(4))}
            got[b"ack"].ack()
            got[b"nack"].nack(delay=3600)
            got[b"bury"].bury("why")
            self.assertGreater(got[b"release"].touch(60), got[b"ack"].lease_expires)
            with self.client.transaction() as tx:
                tx.ack(got[b"release"])
            with self.assertRaises(ipcd.StaleReceipt):
                got[b"release"].ack()
        stats = q.info().stats
        self.assertEqual((stats.consumed_total, stats.delayed, stats.buried, stats.ready), (2, 1, 1, 0))

    def test_missing_queue_is_told_at_once(self):
        with self.assertRaises(ipcd.QueueNotFound):
            with self.client.queue("/missing").consumer():
                self.fail("it began")

    def test_deleted_queue_ends_the_iteration(self):
        q = self.create()
        with self.assertRaises(ipcd.QueueDeleted):
            with q.consumer() as deliveries:
                self.meanwhile(q.delete)
                for _ in deliveries:
                    pass

    def test_handlers_run_in_threads_and_nack_what_fails(self):
        q = self.create(max_attempts=1)
        q.send_many([str(i) for i in range(40)])
        together = threading.Barrier(4)
        seen = []
        with q.consumer() as deliveries:

            def handler(d):
                seen.append(d.body)
                if len(seen) <= 4:
                    together.wait(60)
                if len(seen) == 40:
                    deliveries.stop()
                if int(d.body) % 10 == 3:
                    raise ValueError(d.body)

            deliveries.run(handler, concurrency=4)
        self.assertEqual(sorted(map(int, seen)), list(range(40)))
        stats = q.info().stats
        self.assertEqual((stats.consumed_total, stats.buried), (36, 4))

    def test_settlement_that_failed_is_told(self):
        q = self.create()
        q.send_many([b"1", b"2"])
        told = []
        with q.consumer(on_error=lambda d, e: (told.append((d.body, type(e))), deliveries.stop())) as deliveries:

            def handler(d):
                if d.body == b"1":
                    q.purge(states="leased", types=1, max_sequence=d.sequence)

            deliveries.run(handler)
        self.assertEqual(told, [(b"1", ipcd.StaleReceipt)])

    def test_what_a_callback_raises_ends_it(self):
        q = self.create()
        q.send(b"1")

        def on_error(d, e):
            raise RuntimeError(d.body)

        with self.assertRaisesRegex(RuntimeError, "1"):
            q.consume(lambda d: q.purge(states="leased"), on_error=on_error)

    def test_interrupted_program_finishes_in_good_order(self):
        q = self.create()
        q.send_many([b"1", b"2", b"3"])

        def handler(d):
            if d.body == b"2":
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            q.consume(handler)
        self.assertEqual([(p.body, p.attempts) for p in q.peek()], [(b"2", 0), (b"3", 0)])

    def test_signal_handler_may_stop_it(self):
        q = self.create()
        with q.consumer() as deliveries:
            before = signal.signal(signal.SIGUSR1, lambda *_: deliveries.stop())
            self.addCleanup(signal.signal, signal.SIGUSR1, before)
            main = threading.main_thread().ident
            self.meanwhile(signal.pthread_kill, main, signal.SIGUSR1)
            self.assertEqual(list(deliveries), [])

    def test_broken_connection_is_made_again_and_its_deliveries_come_again(self):
        q = self.create()
        q.send(b"1")
        proxy = Proxy(self.daemon)
        self.addCleanup(proxy.close)
        broken = []
        with ipcd.connect(proxy.address) as client:
            with client.queue(q.name).consumer(on_reconnect=broken.append) as deliveries:
                first = next(deliveries)
                proxy.cut()
                second = next(deliveries)
                self.assertEqual((second.body, second.attempts), (b"1", 1))
                with self.assertRaises(ipcd.StaleReceipt):
                    first.ack()
                second.ack()
        self.assertEqual(q.info().stats.consumed_total, 1)
        self.assertTrue(all(isinstance(e, ipcd.Unreachable) for e in broken) and broken)

    def test_closed_client_ends_it(self):
        q = self.create()
        client = ipcd.connect(self.daemon.address)
        with self.assertRaises(ipcd.Error):
            with client.queue(q.name).consumer() as deliveries:
                self.meanwhile(client.close)
                for _ in deliveries:
                    pass
