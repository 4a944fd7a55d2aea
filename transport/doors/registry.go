package doors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport/posixmq"
)

// registryFile is the record's name in the state directory. Its version rises when an older daemon
// could no longer read it rightly; a daemon refuses a version that it does not know.
const (
	registryFile    = "kernel-queues.json"
	registryVersion = 1
)

// record is one kernel queue that we made, or are about to.
type record struct {
	Name      string `json:"name"` // of the kernel queue, with its slash
	Queue     string `json:"queue"`
	Direction string `json:"direction"`
	BootID    string `json:"boot_id"`
	Inode     uint64 `json:"inode"` // 0: an intent
	Mark      int64  `json:"mark"`  // the modification time given to it at birth, seconds
}

// describes reports whether the object that the kernel shows under the record's name is the recorded one.
func (r record) describes(st posixmq.Stat) bool {
	if r.Inode == 0 {
		return st.Mark == r.Mark
	}
	return st.Inode == r.Inode
}

// newMark returns a time that no clock shows: millions of years away, with 56 random bits.
func newMark() int64 { return 1<<60 | rand.Int64N(1<<56) }

// registry is the record of our kernel queues, in memory and on disk.
type registry struct {
	path   string
	bootID string

	mu      sync.Mutex // guards records, and orders the writing of the file
	records map[string]record
}

type registryContent struct {
	Version int      `json:"version"`
	Records []record `json:"kernel_queues"`
}

// readBootID returns the kernel's random id of this boot, random(4).
func readBootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// openRegistry reads the record. What an earlier boot made is gone, and forgotten.
func openRegistry(stateDir, bootID string) (*registry, error) {
	r := &registry{path: filepath.Join(stateDir, registryFile), bootID: bootID, records: make(map[string]record)}
	file, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the record of kernel queues: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limits.KernelRecordBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the record of kernel queues: %w", err)
	}
	var content registryContent
	if len(text) > limits.KernelRecordBytes {
		err = fmt.Errorf("it is larger than %d bytes", limits.KernelRecordBytes)
	} else if err = json.Unmarshal(text, &content); err == nil && content.Version != registryVersion {
		err = fmt.Errorf("its version is %d, this daemon knows %d", content.Version, registryVersion)
	}
	if err != nil {
		return nil, reason.New(reason.Damaged, "%s cannot be used: %v; move it away to go on, and the kernel queues it names stay until they are unlinked or the host restarts", r.path, err)
	}
	for _, o := range content.Records {
		if o.BootID == bootID {
			r.records[o.Name] = o
		}
	}
	return r, nil
}

// get returns the record of a name.
func (r *registry) get(name string) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.records[name]
	return o, ok
}

// all returns every record, by name.
func (r *registry) all() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sortedLocked()
}

func (r *registry) sortedLocked() []record {
	all := make([]record, 0, len(r.records))
	for _, o := range r.records {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// put records an object. When it returns nil the record survives a crash.
func (r *registry) put(o record) error {
	o.BootID = r.bootID
	r.mu.Lock()
	defer r.mu.Unlock()
	before, had := r.records[o.Name]
	r.records[o.Name] = o
	err := r.saveLocked()
	if err != nil {
		delete(r.records, o.Name)
		if had {
			r.records[o.Name] = before
		}
	}
	return err
}

// confirm replaces a record, in the file at the next save.
func (r *registry) confirm(o record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records[o.Name] = o
}

// forget drops a record, from the file at the next save: what is recorded of an object that is gone
// does no harm, as no other will ever be described by it.
func (r *registry) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.records, name)
}

// save writes the file.
func (r *registry) save() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.saveLocked()
}

func (r *registry) saveLocked() error {
	text, err := json.MarshalIndent(registryContent{Version: registryVersion, Records: r.sortedLocked()}, "", "  ")
	if err == nil {
		err = replaceFile(r.path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("record kernel queues: %w", err)
	}
	return nil
}

// replaceFile puts content in the file's place, so that a crash leaves the old or the new.
func replaceFile(path string, content []byte) error {
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return err
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}
