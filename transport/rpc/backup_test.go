package rpc

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

type backupFile struct {
	name    string
	content []byte
}

// backing is a broker that has these files.
func backing(files ...backupFile) *fakeBroker {
	total := int64(0)
	for _, f := range files {
		total += int64(len(f.content))
	}
	return &fakeBroker{backup: func(_ identity.Identity, file func(string, int64, int64, io.Reader) error) error {
		for _, f := range files {
			if err := file(f.name, int64(len(f.content)), total, bytes.NewReader(f.content)); err != nil {
				return err
			}
		}
		return nil
	}}
}

func TestBackupIsAnArchiveWithItsManifestLast(t *testing.T) {
	files := []backupFile{{"0001.log", bytes.Repeat([]byte("0123456789abcdef"), 3<<16)}, {"0002.log", []byte("short")}, {"empty", nil}}
	h := serve(t, backing(files...))
	stream, err := h.system.Backup(t.Context(), &ipcdv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	const total = 3<<20 + 5
	for done := int64(0); ; {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if done != total {
				t.Errorf("%d bytes are done at the end, want %d", done, total)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Data) > backupChunkBytes || len(r.Data) == 0 || r.DoneBytes < done || r.TotalBytes != total {
			t.Errorf("%d bytes of data, %d of %d done after %d", len(r.Data), r.DoneBytes, r.TotalBytes, done)
		}
		done = r.DoneBytes
		archive.Write(r.Data)
	}
	reader := tar.NewReader(&archive)
	var want []manifestFile
	for _, f := range files {
		header, err := reader.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil || header.Name != "journal/"+f.name || header.Mode != 0o600 || !bytes.Equal(content, f.content) {
			t.Errorf("%s with mode %o and %d bytes, %v; want journal/%s with %d", header.Name, header.Mode, len(content), err, f.name, len(f.content))
		}
		sum := sha256.Sum256(f.content)
		want = append(want, manifestFile{"journal/" + f.name, int64(len(f.content)), hex.EncodeToString(sum[:])})
	}
	header, err := reader.Next()
	if err != nil || header.Name != "MANIFEST.json" {
		t.Fatalf("at the end %v, %v", header, err)
	}
	var got manifest
	if err := json.NewDecoder(reader).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339, got.CreatedAt); err != nil || got.Format != 1 || got.Instance != "instance-1" || got.Version != "v9" || got.TotalBytes != total || !equal(got.Files, want) {
		t.Errorf("manifest %+v", got)
	}
	if _, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the manifest: %v", err)
	}
}

func TestABackupThatFailsHasNoManifest(t *testing.T) {
	for name, test := range map[string]struct {
		broker *fakeBroker
		want   reason.Reason
	}{
		"denied": {&fakeBroker{backup: func(id identity.Identity, _ func(string, int64, int64, io.Reader) error) error {
			if id.Kind != identity.Unix {
				t.Errorf("asked by %v", id)
			}
			return reason.New(reason.AccessDenied, "no")
		}}, reason.AccessDenied},
		"a file is cut": {&fakeBroker{backup: func(_ identity.Identity, file func(string, int64, int64, io.Reader) error) error {
			return file("0001.log", 10, 10, strings.NewReader("short"))
		}}, reason.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, test.broker)
			stream, err := h.system.Backup(t.Context(), &ipcdv1.BackupRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			for err == nil {
				var r *ipcdv1.BackupResponse
				if r, err = stream.Recv(); err == nil {
					archive.Write(r.Data)
				}
			}
			wantReason(t, err, test.want)
			if bytes.Contains(archive.Bytes(), []byte(manifestName)) {
				t.Error("it has a manifest")
			}
		})
	}
}

func TestABackupEndsWhenTheDaemonStops(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	h := serve(t, &fakeBroker{backup: func(_ identity.Identity, file func(string, int64, int64, io.Reader) error) error {
		close(begun)
		<-goOn
		return file("0001.log", 2*backupChunkBytes, 2*backupChunkBytes, bytes.NewReader(make([]byte, 2*backupChunkBytes)))
	}})
	stream, err := h.system.Backup(t.Context(), &ipcdv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	h.server.close()
	close(goOn)
	for err == nil { // a chunk may be on its way
		_, err = stream.Recv()
	}
	wantReason(t, err, reason.ShuttingDown)
}

func TestInfoTellsAboutStorage(t *testing.T) {
	h := serve(t, &fakeBroker{
		storage: broker.Storage{Durable: true, Segments: 1, UsedBytes: 2, DiskBytes: 3, LiveBytes: 4, MemoryBytes: 5, Commits: 6, SyncNanos: 7, SyncMaxNanos: 8, Full: true, Damaged: []string{"/mine", "/hidden"}},
		get: func(_ identity.Identity, name string) (broker.Info, error) {
			if name == "/hidden" {
				return broker.Info{}, reason.New(reason.AccessDenied, "no")
			}
			return broker.Info{Name: name}, nil
		},
	})
	info, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.TemporaryQueues != 2 || info.LateRepliesTotal != 5 {
		t.Errorf("temporary queues %d, late replies %d", info.TemporaryQueues, info.LateRepliesTotal)
	}
	want := &ipcdv1.Storage{Durable: true, Segments: 1, UsedBytes: 2, DiskBytes: 3, LiveBytes: 4, MemoryBytes: 5, CommitsTotal: 6,
		SyncTimeTotal: durationpb.New(7), SyncTimeMax: durationpb.New(8), Full: true, Damaged: 2, DamagedQueues: []string{"/mine"}}
	if !proto.Equal(info.Storage, want) {
		t.Errorf("storage %v\nwant    %v", info.Storage, want)
	}
}
