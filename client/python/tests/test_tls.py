"""TLS, with the certificates that IPCD_CERTS names the directory of; the Go test makes them."""

import os
import unittest
from unittest import mock

import ipcd

from .daemon import Daemon

CERTS = os.environ.get("IPCD_CERTS", "")


@unittest.skipUnless(CERTS, "IPCD_CERTS names no directory of certificates")
class TLSTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--listen", "127.0.0.1:0")
        cls.addClassCleanup(cls.daemon.remove)
        names = {"cert": "daemon.pem", "key": "daemon.key", "client_ca": "ca.pem"}
        path = os.path.join(cls.daemon.directory, "ipcd.yaml")
        with open(path, "w") as config:
            config.write("tls: {%s}\n" % ", ".join(f"{k}: {os.path.join(CERTS, v)}" for k, v in names.items()))
        cls.daemon.use("--config", path)
        cls.daemon.start()
        with ipcd.connect(cls.daemon.address) as client:
            (cls.address,) = [a for a in client.info()["addresses"] if "127.0.0.1" in a]

    def tls(self, name="client", **more):
        files = dict(
            cert_file=os.path.join(CERTS, name + ".pem"),
            key_file=os.path.join(CERTS, name + ".key"),
            ca_file=os.path.join(CERTS, "ca.pem"),
        )
        return ipcd.TLS(**{**files, **more})

    def test_certificates_let_in(self):
        with ipcd.connect(self.address, tls=self.tls()) as client:
            self.assertTrue(client.info()["version"])

    def test_environment_names_the_files(self):
        tls = self.tls()
        environment = {"IPCD_TLS_CERT": tls.cert_file, "IPCD_TLS_KEY": tls.key_file, "IPCD_TLS_CA": tls.ca_file}
        with mock.patch.dict(os.environ, environment):
            with ipcd.connect(self.address) as client:
                self.assertTrue(client.info()["version"])

    def test_foreign_daemon_is_refused(self):
        own = os.path.join(CERTS, "foreign.pem")
        with ipcd.connect(self.address, tls=self.tls(ca_file=own)) as client:
            with self.assertRaises(ipcd.Unauthenticated):
                client.info()

    def test_daemon_of_another_name_is_refused(self):
        with ipcd.connect(self.address, tls=self.tls(server_name="elsewhere.example")) as client:
            with self.assertRaises((ipcd.Unauthenticated, ipcd.Unreachable)):
                client.info()

    def test_foreign_client_is_not_let_in(self):
        with ipcd.connect(self.address, tls=self.tls("foreign")) as client:
            with self.assertRaises((ipcd.Unauthenticated, ipcd.Unreachable)):
                client.info()
