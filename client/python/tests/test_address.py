"""Addresses, and what goes with them."""

import os
import tempfile
import unittest
from unittest import mock

import ipcd
from ipcd._address import parse

from .daemon import DaemonTest


class AddressTest(unittest.TestCase):
    def test_what_people_write(self):
        for address, want in {
            "/run/s": (True, "/run/s"),
            "unix:///run/s": (True, "/run/s"),
            "unix:/run/s": (True, "/run/s"),
            "host:7475": (False, "host:7475"),
            "[::1]:7475": (False, "[::1]:7475"),
        }.items():
            with self.subTest(address):
                self.assertEqual(parse(address), want)
        for address in (
            "run/s",
            "unix:s",
            "unix://s",
            "host",
            "host:",
            ":7475",
            "::1:7475",
            "host:port",
            "/" + "x" * 107,
        ):
            with self.subTest(address), self.assertRaises(ipcd.InvalidArgument):
                ipcd.connect(address)

    def test_default_is_the_environment_then_the_users_socket_then_the_systems(self):
        with tempfile.TemporaryDirectory() as directory:
            environment = {"XDG_RUNTIME_DIR": directory}
            with mock.patch.dict(os.environ, environment, clear=True):
                with mock.patch("os.geteuid", return_value=1000):
                    self.assertEqual(ipcd.default_address(), "unix:///run/ipcd/ipcd.sock")
                    os.mkdir(os.path.join(directory, "ipcd"))
                    path = os.path.join(directory, "ipcd", "ipcd.sock")
                    open(path, "w").close()
                    self.assertEqual(ipcd.default_address(), "unix://" + path)
                with mock.patch("os.geteuid", return_value=0):
                    self.assertEqual(ipcd.default_address(), "unix:///run/ipcd/ipcd.sock")
                os.environ["IPCD_ADDRESS"] = "host:1"
                self.assertEqual(ipcd.default_address(), "host:1")

    def test_tcp_is_safe_or_local(self):
        with mock.patch.dict(os.environ, {}, clear=True):
            for arguments, words in (
                (("127.0.0.1:1",), "TCP needs TLS"),
                (("192.0.2.1:1", dict(insecure=True)), "loopback addresses only"),
                (("localhost:1", dict(insecure=True)), "loopback addresses only"),
                (("/run/s", dict(tls=ipcd.TLS("a", "b"))), "TLS is for TCP"),
                (("127.0.0.1:1", dict(tls=ipcd.TLS("a", "b"), insecure=True)), "choose one"),
                (("127.0.0.1:1", dict(tls=ipcd.TLS("a"))), "belong together"),
                (("127.0.0.1:1", dict(tls=ipcd.TLS("/nonexistent", "/nonexistent"))), "private key|certificate"),
                (("127.0.0.1:1", dict(tls=ipcd.TLS(ca_file=__file__))), "must be PEM"),
            ):
                with self.subTest(arguments), self.assertRaisesRegex(ipcd.InvalidArgument, words):
                    ipcd.connect(arguments[0], **(arguments[1] if len(arguments) > 1 else {}))


class PlaintextTest(DaemonTest):
    arguments = ("--listen", "127.0.0.1:0", "--insecure")

    def test_plaintext_on_loopback_is_anonymous(self):
        (address,) = [a for a in self.client.info()["addresses"] if "127.0.0.1" in a]
        with ipcd.connect(address, insecure=True) as client:
            self.assertTrue(client.info()["version"])
            with self.assertRaises(ipcd.AccessDenied):
                client.create_queue("/q")
