"""Request and reply, temporary queues."""

import threading
from unittest import mock

import ipcd
from ipcd._convert import Deadline
from ipcd._request import _Waiter

from .daemon import DaemonTest, Proxy, eventually

# A request that waits for no reply once it is sent, as if the time given had passed just then.
GIVE_UP = mock.patch.object(_Waiter, "wait", side_effect=ipcd.TimedOut("no reply came"))


class RequestTest(DaemonTest):
    def serve(self, q, handler, **options):
        """Answers with another client until the test is over."""
        client = ipcd.connect(self.daemon.address)
        consumer = client.queue(q.name).consumer(**options)

        def answer(d):
            body = handler(d)
            try:
                d.reply(body)
            except ipcd.QueueNotFound:
                pass

        def run():
            with consumer:
                consumer.run(answer)
            client.close()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(consumer.stop)

    def test_reply_comes_to_who_asked(self):
        q = self.create()
        self.serve(q, lambda d: ipcd.Message(b"re " + d.body, type=d.type + 1, headers={"h": "1"}))
        answers = {}

        def ask(i):
            answers[i] = self.client.request(q.name, str(i), type=i, timeout=60)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(1, 17)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for i in range(1, 17):
            self.assertEqual((answers[i].body, answers[i].type), (f"re {i}".encode(), i + 1))
        self.assertEqual(answers[1].headers, {"h": b"1"})
        self.assertEqual(len([x for x in self.client.queues("tmp.*")]), 1)

    def test_request_lives_no_longer_than_who_waits(self):
        q = self.create()
        with GIVE_UP, self.assertRaises(ipcd.TimedOut):
            self.client.request(q.name, b"?", timeout=5)
        eventually(lambda: q.info().stats.messages == 0, "the request is gone")

    def test_late_reply_is_counted(self):
        q = self.create()
        with GIVE_UP, self.assertRaises(ipcd.TimedOut):
            self.client.request(q.name, b"?", timeout=60, ttl=60)
        (d,) = q.receive(wait=None)
        d.reply(b"late")
        eventually(lambda: self.client.late_replies == 1, "the reply is counted")

    def test_time_given_is_over(self):
        with self.assertRaises(ipcd.TimedOut):
            _Waiter("id").wait(Deadline(0.01))

    def test_reply_to_nobody_is_refused(self):
        q = self.create()
        with ipcd.connect(self.daemon.address) as asking:
            with GIVE_UP, self.assertRaises(ipcd.TimedOut):
                asking.request(q.name, b"?", timeout=60, ttl=60)
        (d,) = q.receive(wait=None)
        eventually(lambda: not list(self.client.queues("tmp.*")), "the queue for replies has ended")
        with self.assertRaises(ipcd.QueueNotFound):
            d.reply(b"late")

    def test_message_that_asks_for_nothing_gets_no_reply(self):
        q = self.create()
        q.send(b"1")
        (d,) = q.receive()
        with self.assertRaisesRegex(ipcd.InvalidArgument, "reply_to"):
            d.reply(b"")

    def test_refused_request_raises_at_once(self):
        with self.assertRaises(ipcd.QueueNotFound):
            self.client.request("/missing", b"")
        with self.assertRaises(ipcd.InvalidArgument):
            self.client.request("/missing", b"", correlation_id="mine")

    def test_broken_connection_loses_replies_and_says_so(self):
        q = self.create()
        proxy = Proxy(self.daemon)
        self.addCleanup(proxy.close)
        with ipcd.connect(proxy.address) as client:
            failed = []

            def ask():
                try:
                    client.request(q.name, b"?", timeout=3600)
                except ipcd.Error as e:
                    failed.append(e)

            thread = threading.Thread(target=ask)
            thread.start()
            eventually(lambda: q.info().stats.ready == 1, "the request is there")
            proxy.cut()
            thread.join()
            self.assertIsInstance(failed[0], ipcd.ReplyLost)
            q.purge()
            self.serve(q, lambda d: b"!")
            again = eventually(lambda: self.try_again(client, q), "the next request gets through")
            self.assertEqual(again.body, b"!")

    def try_again(self, client, q):
        try:
            return client.request(q.name, b"?", timeout=60)
        except (ipcd.ReplyLost, ipcd.Unreachable):
            return None

    def test_closed_client_ends_requests(self):
        q = self.create()
        client = ipcd.connect(self.daemon.address)

        def close():
            eventually(lambda: q.info().stats.ready, "the request is there")
            client.close()

        self.meanwhile(close)
        with self.assertRaises(ipcd.Error):
            client.request(q.name, b"?", timeout=60)


class RespondTest(DaemonTest):
    def test_respond_answers_and_acks(self):
        q = self.create()
        client = ipcd.connect(self.daemon.address)

        def handler(d):
            if d.body == b"bad":
                raise ValueError("bad")
            return b"re " + d.body

        def run():
            try:
                client.queue(q.name).respond(handler, concurrency=2)
            except ipcd.QueueDeleted:
                pass
            client.close()

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(q.delete)
        self.assertEqual(self.client.request(q.name, "1", timeout=60).body, b"re 1")
        eventually(lambda: q.info().stats.consumed_total == 1, "it is acked")
        with GIVE_UP, self.assertRaises(ipcd.TimedOut):
            self.client.request(q.name, "bad", timeout=60)
        eventually(lambda: q.info().stats.nacked_total >= 1, "it is nacked")
        q.purge()
        q.send(b"2", reply_to="/tmp.gone")
        eventually(lambda: q.info().stats.consumed_total == 2, "what nobody waits for is acked")
        nacked = q.info().stats.nacked_total
        q.send(b"3", reply_to="/nobody")
        eventually(lambda: q.info().stats.nacked_total > nacked, "a mistaken queue for replies nacks")


class ClosedTest(DaemonTest):
    def test_closed_client_says_that_nothing_was_sent(self):
        q = self.create()
        client = ipcd.connect(self.daemon.address)
        mine = client.queue(q.name)
        mine.send(b"1")
        client.close()
        with self.assertRaisesRegex(ipcd.Cancelled, "the client is closed"):
            mine.send(b"2")
        self.assertEqual(q.info().stats.ready, 1)


class TemporaryTest(DaemonTest):
    def test_temporary_queue_ends_when_it_is_closed(self):
        with self.client.open_temporary(max_messages=5) as q:
            info = q.info()
            self.assertTrue(info.temporary)
            self.assertEqual((info.settings["max_messages"], info.settings["durability"]), (5, "memory"))
            q.send(b"1")
            self.assertEqual(len(q.receive(at_once=True)), 1)
            self.assertFalse(q.ended)
        with self.assertRaises(ipcd.QueueNotFound):
            q.send(b"2")
        self.assertTrue(eventually(lambda: q.ended, "it ends"))
        self.assertFalse(list(self.client.queues("tmp.*")))

    def test_closed_temporary_queue_takes_no_more_messages(self):
        for _ in range(30):
            with self.client.open_temporary() as q:
                pass
            with self.assertRaises(ipcd.QueueNotFound):
                self.client.queue(q.name).send(b"late")

    def test_queue_for_replies_ends_with_its_client(self):
        jobs = self.create()
        with ipcd.connect(self.daemon.address) as client:
            with GIVE_UP, self.assertRaises(ipcd.TimedOut):
                client.request(jobs.name, b"?")
            self.assertEqual(len(list(self.client.queues("tmp.*"))), 1)
        self.assertEqual(list(self.client.queues("tmp.*")), [])

    def test_temporary_queue_ends_with_its_client(self):
        with ipcd.connect(self.daemon.address) as client:
            q = client.open_temporary()
            self.assertEqual(self.client.queue(q.name).info().name, q.name)
        eventually(lambda: not list(self.client.queues("tmp.*")), "it is gone")
        self.assertTrue(eventually(lambda: q.ended, "it knows"))

    def test_temporary_queue_ends_when_nothing_refers_to_it(self):
        self.client.open_temporary()
        eventually(lambda: not list(self.client.queues("tmp.*")), "it is gone")

    def test_settings_that_do_not_fit_are_refused(self):
        with self.assertRaises(ipcd.InvalidArgument):
            self.client.open_temporary(durability="journal")
