package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/vfs"
)

var rootUser = identity.Identity{Kind: identity.Unix}

// store is a broker with a journal in a state directory of its own.
type store struct {
	*broker.Broker
	t   *testing.T
	dir string // the state directory
}

// openStore opens the journal of a state directory as the daemon does, with small segments.
func openStore(t *testing.T, dir string) *store {
	t.Helper()
	b, err := broker.Open(broker.Options{Journal: &broker.JournalOptions{
		FS: vfs.OS{}, Dir: filepath.Join(dir, journalDir), SegmentBytes: limits.SegmentBytesMin,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &store{b, t, dir}
}

func (s *store) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) create(name string, edits ...func(*queue.Settings)) {
	s.t.Helper()
	_, _, err := s.CreateQueue(s.t.Context(), rootUser, name, func(settings *queue.Settings) error {
		settings.Durability, settings.Kernel.Mode = queue.Journal, queue.KernelNone
		for _, edit := range edits {
			edit(settings)
		}
		return nil
	}, false)
	s.must(err)
}

func (s *store) send(name string, messages ...queue.Message) {
	s.t.Helper()
	for i := range messages {
		messages[i].Type = max(1, messages[i].Type)
	}
	_, err := s.Send(s.t.Context(), rootUser, broker.SendRequest{Queue: name, Messages: messages})
	s.must(err)
}

// receive leases one message for an hour.
func (s *store) receive(name string) queue.Delivery {
	s.t.Helper()
	got, err := s.Receive(s.t.Context(), rootUser, broker.ReceiveRequest{Queue: name, Lease: time.Hour})
	s.must(err)
	if len(got) != 1 {
		s.t.Fatalf("%d messages received from %s, want 1", len(got), name)
	}
	return got[0]
}

func (s *store) settle(d queue.Delivery, v broker.Verdict) {
	s.t.Helper()
	out, err := s.Settle(s.t.Context(), rootUser, []broker.Settlement{{Receipt: d.Receipt, Verdict: v}})
	s.must(err)
	if len(out.Failures) > 0 {
		s.t.Fatal(out.Failures[0].Err)
	}
}

// fill makes a queue with messages in every state, 3 of them ready, and a memory queue.
func (s *store) fill() {
	s.t.Helper()
	s.create("/jobs")
	s.send("/jobs", queue.Message{Body: []byte("acked")})
	s.settle(s.receive("/jobs"), broker.Verdict{Outcome: broker.Ack})
	s.send("/jobs", queue.Message{Body: []byte("buried")})
	s.settle(s.receive("/jobs"), broker.Verdict{Outcome: broker.Bury, Reason: "no \x1b[31mgood"})
	s.send("/jobs", queue.Message{Body: []byte("leased"), Type: 9})
	s.receive("/jobs")
	s.send("/jobs",
		queue.Message{Body: []byte("one\ntwo\x1b[2J"), Headers: []queue.Header{{Key: "k", Value: []byte("v")}}, CorrelationID: "c"},
		queue.Message{Body: []byte{0xff, 0}, Type: 7, Priority: 3},
		queue.Message{Body: []byte("last"), Type: 7},
		queue.Message{Body: []byte("delayed"), Delay: time.Hour},
	)
	s.create("/scratch", func(settings *queue.Settings) { settings.Durability = queue.Memory })
	s.send("/scratch", queue.Message{Body: []byte("gone")})
}

// stateDir is a new and empty one.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// filled returns a state directory that a daemon has filled and left cleanly.
func filled(t *testing.T) string {
	t.Helper()
	dir := stateDir(t)
	s := openStore(t, dir)
	s.fill()
	s.Close()
	return dir
}

// killed returns a state directory as it is found when the daemon was killed.
func killed(t *testing.T, fill func(*store)) string {
	t.Helper()
	s := openStore(t, stateDir(t))
	defer s.Close()
	fill(s)
	dir := stateDir(t)
	if err := os.CopyFS(dir, settled{os.DirFS(s.dir)}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// settled is a state directory without the segments that are only being prepared, which come and go while it is copied.
type settled struct{ fs.FS }

// ReadDir implements fs.ReadDirFS.
func (s settled) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), ".new") }), err
}

// said is what a command wrote, and how it ended.
type said struct {
	out, err string
	failure  error
}

// ipcd runs an offline command on a state directory.
func ipcd(t *testing.T, dir string, args ...string) said {
	t.Helper()
	return ipcdFrom(t, nil, append(args, "--state-dir", dir)...)
}

func ipcdFrom(t *testing.T, stdin []byte, args ...string) (s said) {
	t.Helper()
	root := &cobra.Command{Use: "ipcd", SilenceErrors: true, SilenceUsage: true}
	addOffline(root)
	var out, err bytes.Buffer
	root.SetIn(bytes.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&err)
	root.SetArgs(args)
	s.failure = root.ExecuteContext(t.Context())
	s.out, s.err = out.String(), err.String()
	return s
}

func (s said) fine(t *testing.T) said {
	t.Helper()
	if s.failure != nil {
		t.Fatalf("%v\n%s%s", s.failure, s.out, s.err)
	}
	return s
}

// fails checks that the command failed and said all of that.
func (s said) fails(t *testing.T, say ...string) {
	t.Helper()
	if s.failure == nil {
		t.Errorf("no failure, want one that says %q\n%s%s", say, s.out, s.err)
		return
	}
	for _, say := range say {
		if !strings.Contains(s.failure.Error(), say) {
			t.Errorf("said %q, want %q in it", s.failure, say)
		}
	}
}

func (s said) isDamage() bool {
	var damage broker.DamageError
	return errors.As(s.failure, &damage)
}

// snapshot is everything about a directory that a reader must not change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		if d.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		b.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// segments are the files of a journal.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, journalDir, "*.seg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	slices.Sort(files)
	return files
}

func TestOfflineCommandsChangeNothing(t *testing.T) {
	for name, dir := range map[string]string{"clean": filled(t), "killed": killed(t, (*store).fill)} {
		before := snapshot(t, dir)
		ipcd(t, dir, "fsck").fine(t)
		ipcd(t, dir, "ls").fine(t)
		ipcd(t, dir, "peek", "/jobs", "--state", "all").fine(t)
		if after := snapshot(t, dir); after != before {
			t.Errorf("%s: the state directory has changed", name)
		}
	}
}

func TestOfflineCommandsRefuseARunningDaemonsDirectory(t *testing.T) {
	dir := filled(t)
	lock, err := lockStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprintf("pid %d", os.Getpid())
	for _, args := range [][]string{{"fsck"}, {"ls"}, {"peek", "jobs"}} {
		ipcd(t, dir, args...).fails(t, pid, "ipcctl")
	}
	empty := stateDir(t)
	other, err := lockStateDir(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	file := filepath.Join(t.TempDir(), "b.tar")
	if err := os.WriteFile(file, twoFiles(t), 0o600); err != nil {
		t.Fatal(err)
	}
	ipcd(t, empty, "restore", file).fails(t, pid)
	lock.Close()
	ipcd(t, dir, "fsck").fine(t)
}

// Readers share the directory, and keep a daemon from starting meanwhile.
func TestReadersShareTheLock(t *testing.T) {
	dir := filled(t)
	lock, err := lockStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	reader, err := shareStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ipcd(t, dir, "ls").fine(t)
	if lock, err := lockStateDir(dir); err == nil {
		lock.Close()
		t.Error("a daemon could start while somebody reads")
	}
}

func TestOfflineMistakesAreExplained(t *testing.T) {
	dir := filled(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	interrupted := t.TempDir()
	if err := os.Mkdir(filepath.Join(interrupted, journalDir+partialSuffix), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		usage bool
		dir   string
		args  []string
		say   []string
	}{
		"no directory":         {false, filepath.Join(dir, "none"), []string{"ls"}, []string{"none"}},
		"a file":               {false, file, []string{"ls"}, []string{"no directory"}},
		"no journal":           {false, t.TempDir(), []string{"fsck"}, []string{"no journal", "--state-dir"}},
		"interrupted restore":  {false, interrupted, []string{"fsck"}, []string{"no journal", "restore"}},
		"empty directory name": {true, "", []string{"ls"}, []string{"--state-dir"}},
		"unknown queue":        {false, dir, []string{"peek", "/nobody"}, []string{"/nobody", "ipcd ls"}},
		"queue's name":         {true, dir, []string{"peek", "a/b"}, []string{"a/b"}},
		"no queue":             {true, dir, []string{"peek"}, []string{"one queue", "--help"}},
		"two queues":           {true, dir, []string{"peek", "a", "b"}, []string{"one queue"}},
		"argument of ls":       {true, dir, []string{"ls", "a"}, []string{`"a"`}},
		"argument of fsck":     {true, dir, []string{"fsck", "a"}, []string{`"a"`}},
		"restore without file": {true, dir, []string{"restore"}, []string{"one file"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := ipcd(t, test.dir, test.args...)
			s.fails(t, test.say...)
			var usage usageError
			if errors.As(s.failure, &usage) != test.usage {
				t.Errorf("%v: a mistake of the command line %v, want %v", s.failure, !test.usage, test.usage)
			}
		})
	}
	for _, args := range [][]string{{"ls", "-o", "xml"}, {"peek", "jobs", "--state", "lost"}, {"peek", "jobs", "--type", "0"}, {"peek", "jobs", "-n", "-1"}} {
		ipcd(t, dir, args...).fails(t, args[len(args)-1])
	}
}

func TestOfflineHelpHasExamples(t *testing.T) {
	for _, name := range []string{"fsck", "ls", "peek", "restore"} {
		if s := ipcdFrom(t, nil, name, "--help").fine(t); !strings.Contains(s.out, "Examples:\n  ") || !strings.Contains(s.out, "--state-dir") {
			t.Errorf("%s --help says %q", name, s.out)
		}
	}
}
