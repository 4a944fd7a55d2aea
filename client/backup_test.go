package client

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// archiveOf is a backup of two files as the daemon makes it, after edit has changed the manifest.
func archiveOf(t *testing.T, edit func(manifest map[string]any)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	files := []any{}
	for i, name := range []string{"journal/1", "journal/2"} {
		content := bytes.Repeat([]byte{byte(i + 1)}, 3000)
		add(name, content)
		files = append(files, map[string]any{"name": name, "size": len(content), "sha256": fmt.Sprintf("%x", sha256.Sum256(content))})
	}
	manifest := map[string]any{"format": 1, "files": files}
	edit(manifest)
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	add("MANIFEST.json", text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackupWritesTheArchive(t *testing.T) {
	f := startFake(t)
	f.archive = archiveOf(t, func(map[string]any) {})
	var got bytes.Buffer
	last := int64(0)
	err := f.dial(t).Backup(t.Context(), &got, func(done, total int64) {
		if done <= last || total != int64(len(f.archive)) {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || !bytes.Equal(got.Bytes(), f.archive) || last != int64(len(f.archive)) {
		t.Errorf("%v, %d bytes of %d", err, got.Len(), len(f.archive))
	}
	if err := f.dial(t).Backup(t.Context(), &got, nil); err != nil {
		t.Error(err)
	}
}

func TestABackupThatWasCutOffIsAnError(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	whole := archiveOf(t, func(map[string]any) {})
	manifest := bytes.Index(whole, []byte("MANIFEST.json"))
	for _, n := range []int{1, 600, 512, 3600, manifest, manifest + 100, manifest + 520} {
		f.archive = whole[:n]
		var out bytes.Buffer
		if err := c.Backup(t.Context(), &out, nil); !errors.Is(err, ErrInternal) || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	f.archive = append(bytes.Clone(whole[:manifest]), make([]byte, 1024)...) // an archive, but without its manifest
	if err := c.Backup(t.Context(), new(bytes.Buffer), nil); err == nil || !strings.Contains(err.Error(), "manifest is missing") {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestABackupThatIsNotWhatItsManifestSaysIsAnError(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	first := func(m map[string]any) map[string]any { return m["files"].([]any)[0].(map[string]any) }
	for name, edit := range map[string]func(map[string]any){
		"another sum":    func(m map[string]any) { first(m)["sha256"] = strings.Repeat("0", 64) },
		"another size":   func(m map[string]any) { first(m)["size"] = 1 },
		"another name":   func(m map[string]any) { first(m)["name"] = "journal/3" },
		"a file less":    func(m map[string]any) { m["files"] = m["files"].([]any)[:1] },
		"a file more":    func(m map[string]any) { m["files"] = append(m["files"].([]any), first(m)) },
		"no list at all": func(m map[string]any) { m["files"] = 7 },
	} {
		f.archive = archiveOf(t, edit)
		if err := c.Backup(t.Context(), new(bytes.Buffer), nil); !errors.Is(err, ErrInternal) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.archive = archiveOf(t, func(m map[string]any) { m["format"] = 2 })
	if err := c.Backup(t.Context(), new(bytes.Buffer), nil); !errors.Is(err, ErrUnimplemented) {
		t.Errorf("a later format: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestABackupSaysWhyItFailed(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if err := c.Backup(t.Context(), new(bytes.Buffer), nil); !errors.Is(err, ErrAccessDenied) {
		t.Errorf("%v, want ErrAccessDenied", err)
	}
	f.archive = archiveOf(t, func(map[string]any) {})
	full := errors.New("no space")
	if err := c.Backup(t.Context(), failingWriter{full}, nil); !errors.Is(err, full) {
		t.Errorf("%v, want the writer's error", err)
	}
}

func TestInfoTellsAboutStorage(t *testing.T) {
	f := startFake(t)
	f.storage = &ipcdv1.Storage{Durable: true, Segments: 1, UsedBytes: 2, DiskBytes: 3, LiveBytes: 4, MemoryBytes: 5, CommitsTotal: 6,
		SyncTimeTotal: durationpb.New(7), SyncTimeMax: durationpb.New(8), Full: true, Damaged: 2, DamagedQueues: []string{"/a"}}
	info, err := f.dial(t).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Storage{Durable: true, Segments: 1, UsedBytes: 2, DiskBytes: 3, LiveBytes: 4, MemoryBytes: 5, CommitsTotal: 6,
		SyncTimeTotal: 7 * time.Nanosecond, SyncTimeMax: 8, Full: true, Damaged: 2, DamagedQueues: []string{"/a"}}
	if fmt.Sprint(info.Storage) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", info.Storage, want)
	}
}
