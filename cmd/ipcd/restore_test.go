package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/broker"
)

// backup returns an archive of the journal as the daemon takes it.
func (s *store) backup() []byte {
	s.t.Helper()
	p := pack(s.t)
	s.must(s.Backup(s.t.Context(), rootUser, func(name string, size, _ int64, content io.Reader) error {
		text, err := io.ReadAll(content)
		if int64(len(text)) != size {
			s.t.Errorf("%s has %d bytes, and %d were told", name, len(text), size)
		}
		p.file(journalDir+"/"+name, string(text))
		return err
	}))
	return p.end()
}

// write writes an archive to a file.
func write(t *testing.T, archive []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// aBackup is a backup of a broker that goes on, and what ls and peek show of it.
func aBackup(t *testing.T) (archive []byte, shown string) {
	t.Helper()
	dir := killed(t, func(s *store) {
		s.fill()
		archive = s.backup()
	})
	return archive, show(t, dir)
}

// show is what ls and peek say of a state directory.
func show(t *testing.T, dir string) string {
	t.Helper()
	return ipcd(t, dir, "ls").fine(t).out + ipcd(t, dir, "peek", "/jobs", "--state", "all", "-o", "json").fine(t).out
}

// names are the entries of a directory.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestRestoreBringsBackWhatWasBackedUp(t *testing.T) {
	archive, shown := aBackup(t)
	file := write(t, archive)
	for name, restored := range map[string]func(dir string) said{
		"file":  func(dir string) said { return ipcd(t, dir, "restore", file) },
		"stdin": func(dir string) said { return ipcdFrom(t, archive, "restore", "-", "--state-dir", dir) },
	} {
		dir := filepath.Join(t.TempDir(), "new", "state")
		s := restored(dir).fine(t)
		if !strings.Contains(s.out, "restored 2 queues with 6 messages") || !strings.Contains(s.out, dir) {
			t.Errorf("%s: said %q", name, s.out)
		}
		if got := show(t, dir); got != shown {
			t.Errorf("%s: restored %s, want %s", name, got, shown)
		}
		if got := names(t, dir); !slices.Equal(got, []string{journalDir, lockName}) {
			t.Errorf("%s: the state directory holds %q", name, got)
		}
		if info, err := os.Stat(filepath.Join(dir, journalDir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		// And a daemon runs on it.
		b := openStore(t, dir)
		if d := b.receive("/jobs"); d.Priority != 3 {
			t.Errorf("%s: received %+v", name, d)
		}
		b.Close()
	}
}

func TestRestoreReplacesNothing(t *testing.T) {
	archive, _ := aBackup(t)
	dir := filled(t)
	before := snapshot(t, dir)
	ipcd(t, dir, "restore", write(t, archive)).fails(t, "there is a journal", "--state-dir")
	if snapshot(t, dir) != before {
		t.Error("the state directory has changed")
	}
}

func TestRestoreIntoDirectoriesWithoutAJournal(t *testing.T) {
	archive, shown := aBackup(t)
	for name, prepare := range map[string]func(dir string) error{
		"empty":         func(string) error { return nil },
		"empty journal": func(dir string) error { return os.Mkdir(filepath.Join(dir, journalDir), 0o700) },
		"interrupted restore": func(dir string) error {
			partial := filepath.Join(dir, journalDir+partialSuffix)
			return errors.Join(os.Mkdir(partial, 0o700), os.WriteFile(filepath.Join(partial, "00aa.seg"), []byte("x"), 0o600))
		},
	} {
		dir := stateDir(t)
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		ipcd(t, dir, "restore", write(t, archive)).fine(t)
		if got := show(t, dir); got != shown {
			t.Errorf("%s: restored %s, want %s", name, got, shown)
		}
	}
}

// What somebody put in the way of a restore is not a restore's to remove.
func TestRestoreRemovesNothingOfOthers(t *testing.T) {
	archive, _ := aBackup(t)
	dir := stateDir(t)
	precious := filepath.Join(dir, journalDir+partialSuffix, "precious")
	if err := errors.Join(os.Mkdir(filepath.Dir(precious), 0o700), os.WriteFile(precious, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	ipcd(t, dir, "restore", write(t, archive)).fails(t, "precious", "move it away")
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestARestoreThatFailsLeavesNothing(t *testing.T) {
	archive, _ := aBackup(t)
	damaged := func(change func(content []byte)) []byte {
		p := pack(t)
		in := tar.NewReader(bytes.NewReader(archive))
		for h, err := in.Next(); err == nil && h.Name != manifestName; h, err = in.Next() {
			content, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			change(content)
			p.file(h.Name, string(content))
		}
		return p.end()
	}
	flipped := damaged(func(content []byte) {
		if at := bytes.Index(content, []byte("delayed")); at >= 0 {
			content[at] ^= 1
		}
	})
	for name, test := range map[string]struct {
		archive []byte
		say     string
		damage  bool
	}{
		"truncated":         {archive[:len(archive)/2], "truncated", false},
		"without manifest":  {archive[:bytes.Index(archive, []byte(manifestName))&^511], "truncated", false},
		"nothing":           {nil, "truncated", false},
		"not a backup":      {bytes.Repeat([]byte("x"), 2048), "no backup", false},
		"a journal damaged": {flipped, "the journal in it is damaged", true},
		"no journal at all": {damaged(func(content []byte) { clear(content) }), "journal", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			s := ipcd(t, dir, "restore", write(t, test.archive))
			s.fails(t, test.say, "backup.tar")
			if s.isDamage() != test.damage {
				t.Errorf("%v: damage %v, want %v", s.failure, s.isDamage(), test.damage)
			}
			if got := names(t, dir); !slices.Equal(got, []string{lockName}) {
				t.Errorf("left %q", got)
			}
		})
	}
}

// A file with a path that leads outside makes no file anywhere.
func TestRestoreWritesNothingOutside(t *testing.T) {
	for _, name := range []string{"../0000.seg", "journal/../../0000.seg", "/tmp/../0000.seg", "journal/..", `journal\..\0000.seg`} {
		outer := t.TempDir()
		dir := filepath.Join(outer, "state")
		p := pack(t)
		p.file(name, "x")
		ipcd(t, dir, "restore", write(t, p.end())).fails(t, "only journal/0000.seg to")
		if got := names(t, outer); !slices.Equal(got, []string{"state"}) {
			t.Errorf("%s: made %q", name, got)
		}
		if got := names(t, dir); !slices.Equal(got, []string{lockName}) {
			t.Errorf("%s: made %q", name, got)
		}
	}
}

func TestRestoreMistakesAreExplained(t *testing.T) {
	dir := stateDir(t)
	ipcd(t, dir, "restore", filepath.Join(dir, "none.tar")).fails(t, "none.tar")
	ipcd(t, dir, "restore", dir).fails(t, "is a directory")
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("made %q", got)
	}
}

// The error of damage is the broker's, so that the exit code is that of a daemon that does not start.
func TestDamageKeepsItsKind(t *testing.T) {
	for _, err := range []error{damageFound{err: broker.DamageError{}}, damageInBackup{err: broker.DamageError{}}} {
		var damage broker.DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%v is no damage", err)
		}
	}
}
