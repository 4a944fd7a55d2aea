package ring

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// Names in the state directory.
const (
	definitionsName = "rings.json"
	keyName         = "rings.key"
)

const (
	// formatVersion is that of rings.json. It rises when an older daemon would go wrong with what a newer one wrote:
	// fields are only added together with a new version, and older versions stay readable.
	formatVersion  = 1
	definitionsMax = 4 << 20 // bytes of rings.json; that of limits.Rings rings is far less
	keyBytes       = 32
	runMax         = math.MaxUint32 - 1 // runs are the high half of epochs and ids
)

// file is rings.json.
type file struct {
	Version  int          `json:"version"`
	Run      uint64       `json:"run"`      // of the daemon that wrote it
	BootID   string       `json:"boot_id"`  // of the machine then
	Attached bool         `json:"attached"` // members were, or may have been, attached when the daemon ended
	LastID   uint64       `json:"last_id"`  // the highest id that a ring has had
	Rings    []definition `json:"rings"`    // by id
}

// definition is one ring.
type definition struct {
	ID         uint64 `json:"id"`
	Name       string `json:"name"`
	CreatedNS  int64  `json:"created_unix_nanos"`
	Capacity   int64  `json:"capacity_bytes"`
	MaxMessage int64  `json:"max_message_bytes"`
	Policy     Policy `json:"policy"`
	OwnerUID   uint32 `json:"owner_uid"`
	GroupGID   uint32 `json:"group_gid"`
	Mode       uint32 `json:"mode"`
	Retain     int64  `json:"retain_bytes"`
	StallNS    int64  `json:"stall_nanos"`
}

func (rg *ring) definition(s *Settings) definition {
	return definition{ID: rg.id, Name: rg.name, CreatedNS: rg.created.UnixNano(), Capacity: s.Capacity, MaxMessage: s.MaxMessage, Policy: s.Policy,
		OwnerUID: s.OwnerUID, GroupGID: s.GroupGID, Mode: s.Mode, Retain: s.Retain, StallNS: int64(s.Stall)}
}

func (d *definition) settings() Settings {
	return Settings{Capacity: d.Capacity, MaxMessage: d.MaxMessage, Policy: d.Policy, OwnerUID: d.OwnerUID, GroupGID: d.GroupGID,
		Mode: d.Mode, Retain: d.Retain, Stall: time.Duration(d.StallNS)}
}

// load reads what an earlier run left, and begins a new one. It reports whether members of that run may come back.
func (r *Rings) load() (back bool, err error) {
	if err := r.fs.MkdirAll(r.dir); err != nil {
		return false, fmt.Errorf("make the state directory: %w", err)
	}
	f := &file{Version: formatVersion}
	name := filepath.Join(r.dir, definitionsName)
	data, err := vfs.ReadFile(r.fs, name, definitionsMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("read the definitions of rings: %w", err)
	default:
		if f, err = decode(data); err != nil {
			return false, reason.New(reason.Damaged, "%s is left as it is: %v", name, err)
		}
	}
	if f.Run >= runMax {
		return false, fmt.Errorf("%s is left as it is: run %d is the last that there may be: move the file away and create the rings anew", name, f.Run)
	}
	if err := r.loadKey(); err != nil {
		return false, err
	}
	back = f.Attached && f.BootID == r.bootID
	r.run, r.lastID = f.Run+1, f.LastID
	r.attached.Store(back)
	for i := range f.Rings {
		d := &f.Rings[i]
		r.byName[d.Name] = newRing(r, d.Name, d.ID, time.Unix(0, d.CreatedNS), d.settings())
		r.quotas.Add(identity.User(d.OwnerUID), quota.Rings, 1)
	}
	if err := r.save(nil); err != nil {
		return false, fmt.Errorf("begin run %d: %w", r.run, err)
	}
	r.log.Info("rings opened", zap.Int("rings", len(f.Rings)), zap.Uint64("run", r.run), zap.Bool("members_may_come_back", back))
	return back, nil
}

// loadKey reads the key of tokens, or makes one.
func (r *Rings) loadKey() error {
	name := filepath.Join(r.dir, keyName)
	key, err := vfs.ReadFile(r.fs, name, keyBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key = make([]byte, keyBytes)
		_, _ = rand.Read(key) // it never fails: see its documentation
		// The file system makes files with mode 0600.
		if err := vfs.WriteFileAtomic(r.fs, name, key); err != nil {
			return fmt.Errorf("write the key of rings' members: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read the key of rings' members: %w", err)
	case len(key) != keyBytes:
		return fmt.Errorf("%s is left as it is: it has %d bytes, not %d: restore it, or remove it, and members that are attached cannot come back", name, len(key), keyBytes)
	}
	r.key = key
	return nil
}

// save writes all definitions, with a change that is not yet in memory. admin must be held, but in load.
func (r *Rings) save(change func(*file)) error {
	f := file{Version: formatVersion, Run: r.run, BootID: r.bootID, Attached: r.attached.Load(), LastID: r.lastID, Rings: []definition{}}
	for _, rg := range r.all() {
		f.Rings = append(f.Rings, rg.definition(rg.settings.Load()))
	}
	if change != nil {
		change(&f)
	}
	slices.SortFunc(f.Rings, func(a, b definition) int { return cmp.Compare(a.ID, b.ID) })
	data, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = vfs.WriteFileAtomic(r.fs, filepath.Join(r.dir, definitionsName), append(data, '\n'))
	}
	if err != nil {
		return internalError(err, "write the definitions of rings")
	}
	return nil
}

// markAttached has it on disk that members may be attached, before the first one is.
func (r *Rings) markAttached() error {
	if r.attached.Load() {
		return nil
	}
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.attached.Load() {
		return nil
	}
	if err := r.save(func(f *file) { f.Attached = true }); err != nil {
		return err
	}
	r.attached.Store(true)
	return nil
}

// decode reads rings.json. It accepts nothing that it would not have written itself, but for white space: what it does not
// know, and so would lose, what is there twice, and what is missing.
func decode(data []byte) (*file, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("it is no definitions of rings: %w: restore it, or move it away and create the rings anew", err)
	}
	if version.Version != formatVersion {
		return nil, fmt.Errorf("it has version %d, and this daemon reads %d: use the daemon that wrote it, or a newer one", version.Version, formatVersion)
	}
	var f file
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return nil, fmt.Errorf("it is damaged: %w: restore it, or move it away and create the rings anew", err)
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("it is damaged: %w: restore it, or move it away and create the rings anew", err)
	}
	again, err := json.Marshal(&f)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, err
	}
	if !bytes.Equal(again, compact.Bytes()) {
		return nil, errors.New("it is damaged: fields are missing, there twice, or in another order than the daemon writes them: restore it, or move it away and create the rings anew")
	}
	return &f, nil
}

// check says what is wrong with the definitions, if anything.
func (f *file) check() error {
	if f.Run == 0 || f.Rings == nil {
		return errors.New("it has no run or no rings")
	}
	if len(f.Rings) > limits.Rings {
		return fmt.Errorf("it has %d rings, and %d are allowed", len(f.Rings), limits.Rings)
	}
	names := map[string]bool{}
	last := uint64(0)
	for i := range f.Rings {
		d := &f.Rings[i]
		if err := checkName(d.Name); err != nil {
			return err
		}
		if names[d.Name] {
			return fmt.Errorf("ring %s is there twice", d.Name)
		}
		names[d.Name] = true
		if d.ID <= last || d.ID > f.LastID {
			return fmt.Errorf("ring %s has id %d after %d, and the last given out is %d", d.Name, d.ID, last, f.LastID)
		}
		last = d.ID
		s := d.settings()
		if err := s.Check(); err != nil {
			return fmt.Errorf("ring %s: %w", d.Name, err)
		}
		if s != d.settings() {
			return fmt.Errorf("ring %s: settings are missing", d.Name)
		}
	}
	return nil
}
