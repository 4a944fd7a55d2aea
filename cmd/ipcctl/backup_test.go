package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// backingUp starts a daemon with a backup to hand out, and returns a directory for it.
func backingUp(t *testing.T) (*fake, string) {
	t.Helper()
	content := bytes.Repeat([]byte("x"), 2048)
	manifest := fmt.Appendf(nil, `{"format":1,"files":[{"name":"journal/1","size":2048,"sha256":"%x"}]}`, sha256.Sum256(content))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range []struct {
		name    string
		content []byte
	}{{"journal/1", content}, {"MANIFEST.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.content)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(file.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := startFake(t)
	f.archive = b.Bytes()
	return f, t.TempDir()
}

// wantFiles compares the names in a directory.
func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if strings.Join(found, " ") != strings.Join(names, " ") {
		t.Errorf("the directory has %q, want %q", found, names)
	}
}

func wantContent(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, %v; want %d", path, len(got), err, len(want))
	}
}

func TestBackupWritesAFileThatOnlyItsOwnerReads(t *testing.T) {
	f, dir := backingUp(t)
	path := filepath.Join(dir, "b.tar")
	f.ctl(t, "", "backup", path).want(t, 0, "", "wrote "+path+": "+humanBytes(uint64(len(f.archive)))+"\n")
	wantContent(t, path, f.archive)
	wantFiles(t, dir, "b.tar")
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestBackupReplacesAFileOnlyByForce(t *testing.T) {
	f, dir := backingUp(t)
	path := filepath.Join(dir, "b.tar")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.ctl(t, "", "backup", path).want(t, 1, "", "ipcctl: "+quoteArg(path)+" exists: name another file, or replace it with --force\n")
	wantContent(t, path, []byte("old"))
	if err := os.WriteFile(path+".partial", []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "b.tar")
	if r := f.ctl(t, "", "backup", other, "--force"); r.exit != 0 {
		t.Errorf("exit %d: %s", r.exit, r.err)
	}
	wantContent(t, path, f.archive)
	wantFiles(t, dir, "b.tar")
	if r := f.ctl(t, "", "backup", dir, "--force"); r.exit != 1 || !strings.Contains(r.err, "is no regular file") {
		t.Errorf("exit %d: %s", r.exit, r.err)
	}
}

func TestBackupLeavesAnotherOneUnderWayAlone(t *testing.T) {
	f, dir := backingUp(t)
	path := filepath.Join(dir, "b.tar")
	if err := os.WriteFile(path+".partial", []byte("under way"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.ctl(t, "", "backup", path).want(t, 1, "", "ipcctl: "+quoteArg(path+".partial")+" exists: another backup is under way, or was interrupted; remove it, or give --force\n")
	wantContent(t, path+".partial", []byte("under way"))
}

func TestABackupThatFailsLeavesNoFile(t *testing.T) {
	f, dir := backingUp(t)
	path := filepath.Join(dir, "b.tar")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := f.archive
	for name, test := range map[string]struct {
		archive []byte
		exit    int
		said    string
	}{
		"denied":          {nil, 5, "only admins may"},
		"cut off":         {whole[:1500], 70, "cut off"},
		"without its end": {append(bytes.Clone(whole[:512+2048]), make([]byte, 1024)...), 70, "its manifest is missing"},
		"damaged":         {bytes.Replace(whole, []byte("xxx"), []byte("xyx"), 1), 70, "damaged"},
	} {
		f.mu.Lock()
		f.archive = test.archive
		f.mu.Unlock()
		if r := f.ctl(t, "", "backup", path, "--force"); r.exit != test.exit || !strings.Contains(r.err, test.said) || r.out != "" {
			t.Errorf("%s: exit %d, stderr %q", name, r.exit, r.err)
		}
		wantContent(t, path, []byte("old"))
		wantFiles(t, dir, "b.tar")
		if r := f.ctl(t, "", "backup", "-"); r.exit != test.exit {
			t.Errorf("%s: to stdout: exit %d", name, r.exit)
		}
	}
}

func TestBackupToStdout(t *testing.T) {
	f, _ := backingUp(t)
	f.ctl(t, "", "backup", "-").want(t, 0, string(f.archive), "")
	var errOut bytes.Buffer
	if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: io.Discard, err: &errOut, outTTY: true}, "backup", "-"); exit != 2 || !strings.Contains(errOut.String(), "nothing for a terminal") {
		t.Errorf("on a terminal: exit %d, %s", exit, errOut.String())
	}
	// Half a backup is none: a reader that goes away is a failure here.
	errOut.Reset()
	if exit := f.run(t.Context(), streams{in: strings.NewReader(""), out: &brokenPipe{writes: 1}, err: &errOut}, "backup", "-"); exit != 1 || errOut.Len() == 0 {
		t.Errorf("to a broken pipe: exit %d, %s", exit, errOut.String())
	}
	f.ctl(t, "", "backup").want(t, 2, "", "ipcctl: name a file to write, or - for stdout, as in: ipcctl backup ipcd.tar\n")
	f.ctl(t, "", "backup", "a", "b").want(t, 2, "", "ipcctl: backup writes one file, \"b\" is too much; see ipcctl backup --help\n")
}
