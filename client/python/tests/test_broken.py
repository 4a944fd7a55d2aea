"""Broken connections and restarted daemons: what is sent again is stored once, or said to be unknown."""

import threading
from unittest import mock

import ipcd
from ipcd import _exchange

from .daemon import DaemonTest, Proxy, eventually


class LostAnswerTest(DaemonTest):
    def setUp(self):
        super().setUp()
        self.proxy = Proxy(self.daemon)
        self.addCleanup(self.proxy.close)
        self.far = ipcd.connect(self.proxy.address)
        self.addCleanup(self.far.close)
        self.far._daemon_instance(None)  # it is connected

    def test_send_whose_answer_was_lost_is_stored_once(self):
        q = self.create()
        self.proxy.lose_answer(lambda: q.info().stats.sent_total == 2)
        sent = self.far.queue(q.name).send_many([b"1", b"2"])
        self.assertEqual(self.proxy.lost, 1)
        self.assertEqual([p.sequence for p in q.peek()], [s.sequence for s in sent])

    def test_transaction_whose_answer_was_lost_is_done_once(self):
        q = self.create()
        q.send(b"0")
        (d,) = q.receive()
        self.proxy.lose_answer(lambda: q.info().stats.sent_total == 2)
        with self.far.transaction() as tx:
            tx.send(q.name, b"1")
            tx.ack(d)
        self.assertEqual(self.proxy.lost, 1)
        self.assertEqual([p.sequence for p in q.peek()], [s.sequence for s in tx.sent])

    def test_refused_repeat_leaves_the_outcome_open(self):
        q = self.create()

        def stored_then_deleted():
            if q.info().stats.sent_total == 0:
                return False
            q.delete()
            return True

        self.proxy.lose_answer(stored_then_deleted)
        with self.assertRaises(ipcd.OutcomeUnknown):
            self.far.queue(q.name).send(b"1")

    def test_daemon_that_stays_away_leaves_the_outcome_open(self):
        q = self.create()

        def stored_then_away():
            if q.info().stats.sent_total == 0:
                return False
            self.proxy._daemon = mock.Mock(address="/nonexistent")
            return True

        self.proxy.lose_answer(stored_then_away)
        with mock.patch.object(_exchange, "RESEND_WINDOW", 0.2), self.assertRaises(ipcd.OutcomeUnknown):
            self.far.queue(q.name).send(b"1")
        self.assertEqual(q.info().stats.sent_total, 1)

    def test_time_given_is_over_with_the_answer_missing(self):
        q = self.create()

        def stored_then_away():
            if q.info().stats.sent_total == 0:
                return False
            self.proxy._daemon = mock.Mock(address="/nonexistent")
            return True

        self.proxy.lose_answer(stored_then_away)
        with self.assertRaises(ipcd.OutcomeUnknown):
            self.far.queue(q.name).send(b"1", timeout=0.3)

    def test_receive_asks_again(self):
        q = self.create()
        got = []
        receiver = threading.Thread(target=lambda: got.extend(self.far.queue(q.name).receive(wait=None)))
        receiver.start()
        eventually(lambda: q.info().stats.receivers == 1, "it waits")
        self.proxy.cut()
        eventually(lambda: q.info().stats.receivers == 0, "it is gone")
        q.send(b"1")
        receiver.join()
        self.assertEqual([d.body for d in got], [b"1"])

    def test_receive_at_once_may_lose_messages_and_says_so(self):
        q = self.create()
        failed = []

        def receive():
            try:
                self.far.queue(q.name).receive(wait=None, at_once=True)
            except ipcd.Error as e:
                failed.append(e)

        receiver = threading.Thread(target=receive)
        receiver.start()
        eventually(lambda: q.info().stats.receivers == 1, "it waits")
        self.proxy.cut()
        receiver.join()
        self.assertIsInstance(failed[0], ipcd.OutcomeUnknown)


class RestartTest(DaemonTest):
    def test_client_outlives_the_daemon(self):
        q = self.create()
        q.send(b"1")
        self.daemon.stop()
        with self.assertRaises(ipcd.Unreachable):
            q.info()
        self.daemon.start()
        eventually(self.answers, "the client reaches the new daemon")
        q.send(b"2")
        self.assertEqual([p.body for p in q.peek()], [b"1", b"2"])

    def test_new_instance_is_learnt_without_a_lost_send(self):
        q = self.create(durability="memory")  # which knows nothing of batches that went to an earlier instance
        q.send(b"1")
        self.daemon.stop()
        self.daemon.start()
        eventually(self.answers, "the client reaches the new daemon")
        q.send(b"2")
        self.assertEqual([p.body for p in q.peek()], [b"2"])

    def test_later_instance_does_not_store_again_what_an_earlier_one_stored(self):
        q = self.create(durability="memory")
        proxy = Proxy(self.daemon)
        self.addCleanup(proxy.close)

        def stored_then_restarted():
            if q.info().stats.sent_total == 0:
                return False
            self.daemon.stop()
            self.daemon.start()
            return True

        with ipcd.connect(proxy.address) as far:
            far.info()
            proxy.lose_answer(stored_then_restarted)
            with self.assertRaises(ipcd.OutcomeUnknown):
                far.queue(q.name).send(b"1")
        eventually(self.answers, "the client reaches the new daemon")
        self.assertEqual(q.info().stats.messages, 0)

    def answers(self):
        try:
            return self.client.info()
        except ipcd.Unreachable:
            return None


class UnreachableTest(DaemonTest):
    def test_nothing_was_sent_where_no_daemon_answers(self):
        with ipcd.connect(self.daemon.directory + "/none") as client:
            for call in (client.info, lambda: client.queue("/q").send(b""), lambda: client.queue("/q").receive()):
                with self.assertRaisesRegex(ipcd.Unreachable, "no ipcd answers at unix://.*/none"):
                    call()
            with self.assertRaises(ipcd.Unreachable):
                with client.queue("/q").consumer():
                    self.fail("it began")

    def test_closed_client_says_so(self):
        client = ipcd.connect(self.daemon.address)
        client.info()
        client.close()
        with self.assertRaises(ipcd.Cancelled):
            client.info()
        with self.assertRaises(ipcd.Cancelled):
            list(client.queues())
        client.close()
