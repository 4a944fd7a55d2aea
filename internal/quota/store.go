package quota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// What operators set is in this file of the state directory.
const (
	fileName = "quotas.json"
	fileMax  = 4 << 20 // bytes
	setMax   = 10_000  // principals with limits of their own

	// formatVersion rises when an older daemon would go wrong with what a newer one wrote. Older versions stay readable.
	formatVersion = 1
)

// file is quotas.json.
type file struct {
	Version int      `json:"version"`
	Quotas  []stored `json:"quotas"`
}

// stored is what was set for one principal: a user, a certificate or, with neither, anonymous callers.
type stored struct {
	UID         *uint32          `json:"uid,omitempty"`
	Certificate string           `json:"certificate,omitempty"`
	Limits      map[string]int64 `json:"limits"` // -1: unlimited
}

// Open returns a Table that remembers in dir what operators set.
func Open(fsys vfs.FS, dir string, daemonUID uint32, c Config) (*Table, error) {
	t := New(daemonUID, c)
	t.fs, t.path = fsys, filepath.Join(dir, fileName)
	data, err := vfs.ReadFile(fsys, t.path, fileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the quotas: %w", err)
	}
	if err := t.decode(data); err != nil {
		return nil, reason.New(reason.Damaged, "%s: %v; repair it, or move it away to go on with the quotas of the configuration", t.path, err)
	}
	return t, nil
}

func (t *Table) decode(data []byte) error {
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var version struct{ Version int }
	if json.Unmarshal(data, &version) == nil && version.Version > formatVersion {
		return fmt.Errorf("it has format version %d, of a newer ipcd; this one knows up to %d", version.Version, formatVersion)
	}
	if err := d.Decode(&f); err != nil {
		return err
	}
	if f.Version != formatVersion || len(f.Quotas) > setMax {
		return fmt.Errorf("format version %d with %d entries: this ipcd knows version %d, and %d entries", f.Version, len(f.Quotas), formatVersion, setMax)
	}
	for _, s := range f.Quotas {
		p := identity.Principal{}
		switch {
		case s.UID != nil:
			p = identity.User(*s.UID)
		case s.Certificate != "":
			p = identity.Principal{Kind: identity.Certificate, Name: s.Certificate}
		}
		limits := Limits{}
		for name, n := range s.Limits {
			r, ok := Named(name)
			if !ok {
				return fmt.Errorf("%q is no resource", name)
			}
			if n < 0 {
				n = Unlimited
			}
			limits[r] = n
		}
		t.set[p] = limits
	}
	return nil
}

// Change lets edit change what operators set for a principal, writes it down, and puts it in force. An error is
// *reason.Error, and nothing is changed.
func (t *Table) Change(p identity.Principal, edit func(Limits)) (Usage, error) {
	t.changing.Lock() // not mu, which nobody may hold while the disk works
	defer t.changing.Unlock()
	all := t.settings()
	limits := Limits{}
	for r, n := range all[p] {
		limits[r] = n
	}
	edit(limits)
	for r, n := range limits {
		if floor := t.Floor(p, r); n < floor {
			return Usage{}, reason.Invalid("limits", "%s %d of %v: root and the daemon's user have at least %d, or nobody could set quotas any more", r, n, p, floor)
		}
	}
	delete(all, p)
	if len(limits) > 0 {
		all[p] = limits
	}
	if len(all) > setMax {
		return Usage{}, reason.New(reason.QuotaExceeded, "%d identities have limits of their own, all that may: reset one", setMax)
	}
	if t.fs != nil {
		if err := vfs.WriteFileAtomic(t.fs, t.path, encode(all)); err != nil {
			return Usage{}, reason.New(reason.Internal, "the quota could not be written down, and stays as it was: %v", err)
		}
	}
	t.Set(p, limits)
	return t.Usage(p), nil
}

func encode(all map[identity.Principal]Limits) []byte {
	f := file{Version: formatVersion, Quotas: []stored{}}
	var whos []identity.Principal
	for p := range all {
		whos = append(whos, p)
	}
	slices.SortFunc(whos, comparePrincipals)
	for _, p := range whos {
		s := stored{Limits: map[string]int64{}}
		switch p.Kind {
		case identity.Unix:
			s.UID = &p.UID
		case identity.Certificate:
			s.Certificate = p.Name
		}
		for r, n := range all[p] {
			if n == Unlimited {
				n = -1
			}
			s.Limits[r.String()] = n
		}
		f.Quotas = append(f.Quotas, s)
	}
	data, _ := json.MarshalIndent(f, "", "\t") // of numbers and strings: it cannot fail
	return append(data, '\n')
}
