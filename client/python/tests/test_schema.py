"""Schemas of queues."""

from google.protobuf import timestamp_pb2, type_pb2

import ipcd

from .daemon import DaemonTest


class SchemaTest(DaemonTest):
    def test_schema_says_what_bodies_are(self):
        q = self.create(type_names={"time": 7})
        with self.assertRaises(ipcd.SchemaNotFound):
            q.schema()
        first = q.register_schema(timestamp_pb2.DESCRIPTOR, {"time": "google.protobuf.Timestamp"}, validate=True)
        self.assertEqual((first.version, first.created, first.types), (1, True, {7: "google.protobuf.Timestamp"}))
        stored = q.schema()
        self.assertEqual((stored.version, stored.types, stored.validated), (1, {7: "google.protobuf.Timestamp"}, [7]))
        again = q.register_schema(stored.descriptors, {7: "google.protobuf.Timestamp"}, validate=True)
        self.assertEqual((again.version, again.created), (1, False))
        self.assertEqual(q.info().schema_version, 1)

        q.send(timestamp_pb2.Timestamp(seconds=5).SerializeToString(), type="time")
        q.send(b"\xff", type=8)
        with self.assertRaises(ipcd.SchemaMismatch) as caught:
            q.send_many([ipcd.Message(b"", type=7), ipcd.Message(b"\xff", type=7)])
        self.assertEqual(caught.exception.index, 1)
        q.remove_schema()
        q.send(b"\xff", type=7)

    def test_imports_come_along(self):
        q = self.create()
        q.register_schema(type_pb2.DESCRIPTOR, {1: "google.protobuf.Type"})
        self.assertIn(b"google/protobuf/any.proto", q.schema().descriptors)

    def test_incompatible_schema_is_refused(self):
        q = self.create()
        q.register_schema(timestamp_pb2.DESCRIPTOR, {1: "google.protobuf.Timestamp"})
        other = (type_pb2.DESCRIPTOR, {1: "google.protobuf.Type"})
        self.assertTrue(q.register_schema(*other, dry_run=True, allow_incompatible=True).incompatibilities)
        with self.assertRaises(ipcd.SchemaIncompatible):
            q.register_schema(*other)
        self.assertEqual(q.register_schema(*other, allow_incompatible=True).version, 2)

    def test_what_is_no_schema_is_refused(self):
        q = self.create()
        with self.assertRaises(ipcd.InvalidArgument):
            q.register_schema("text", {1: "a.B"})
        with self.assertRaises(ipcd.SchemaInvalid):
            q.register_schema(b"\xff", {1: "a.B"})
