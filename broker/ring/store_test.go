package ring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

func TestDefinitionsSurvive(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/gone", small)
	w.create(alice, "/all", func(s *Settings) error {
		*s = Settings{Capacity: 1 << 20, MaxMessage: 12345, Policy: Lossless, OwnerUID: 1000, GroupGID: 100, Mode: 0o640, Retain: 5 << 20, Stall: 3 * time.Second}
		return nil
	})
	w.create(bob, "/defaults", func(*Settings) error { return nil })
	if _, err := w.Delete(context.Background(), alice, "/gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Update(context.Background(), bob, "/defaults", func(s *Settings) error { s.Mode = 0o644; return nil }); err != nil {
		t.Fatal(err)
	}
	before, err := w.List(context.Background(), root, "")
	if err != nil || len(before) != 2 {
		t.Fatal(before, err)
	}
	w.restart()
	after, err := w.List(context.Background(), root, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if after[i].Epoch <= before[i].Epoch {
			t.Errorf("%s: epoch %d after %d", after[i].Name, after[i].Epoch, before[i].Epoch)
		}
		before[i].Epoch = after[i].Epoch
		if !after[i].Created.Equal(before[i].Created) {
			t.Errorf("%s: created %v, then %v", after[i].Name, before[i].Created, after[i].Created)
		}
		before[i].Created = after[i].Created
	}
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if i := w.create(alice, "/gone", small); i.ID != 4 {
		t.Errorf("ring %d: an id was given out again", i.ID)
	}
}

func TestRunRises(t *testing.T) {
	w := newWorld(t, Options{})
	w.create(alice, "/r", small)
	last := uint64(0)
	for want := range uint64(5) {
		if w.run != want+1 {
			t.Errorf("run %d, want %d", w.run, want+1)
		}
		p := w.consumer(alice, "/r")
		if p.ID() <= last {
			t.Errorf("member %#x after %#x", p.ID(), last)
		}
		last = p.ID()
		p.Leave("test")
		w.restart()
	}
}

func TestKeyIsPrivateAndStays(t *testing.T) {
	w := newWorld(t, Options{})
	name := filepath.Join(w.o.Dir, keyName)
	info, err := os.Stat(name)
	if err != nil || info.Mode() != 0o600 || info.Size() != 32 {
		t.Fatalf("%+v, %v", info, err)
	}
	key := w.key
	w.restart()
	if !bytes.Equal(key, w.key) {
		t.Error("another key after a restart")
	}
	if other := newWorld(t, Options{}); bytes.Equal(key, other.key) {
		t.Error("two daemons have one key")
	}
}

const oneRing = `{
  "version": 1,
  "run": 7,
  "boot_id": "boot",
  "attached": false,
  "last_id": 3,
  "rings": [
    {
      "id": 2,
      "name": "/r",
      "created_unix_nanos": 1,
      "capacity_bytes": 65536,
      "max_message_bytes": 1000,
      "policy": "lossless",
      "owner_uid": 0,
      "group_gid": 0,
      "mode": 384,
      "retain_bytes": 0,
      "stall_nanos": 1000000000
    }
  ]
}
`

func TestReleasedFormatStaysReadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, definitionsName), []byte(oneRing), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Options{Dir: dir})
	i := w.info("/r")
	want := Settings{Capacity: 65536, MaxMessage: 1000, Policy: Lossless, Mode: 0o600, Stall: time.Second}
	if i.ID != 2 || i.Settings != want || w.run != 8 || w.lastID != 3 {
		t.Errorf("%+v in run %d, last id %d", i, w.run, w.lastID)
	}
	now, err := os.ReadFile(filepath.Join(dir, definitionsName))
	if want := strings.Replace(oneRing, `"run": 7`, `"run": 8`, 1); err != nil || string(now) != want {
		t.Errorf("written: %s\n%v", now, err)
	}
}

func TestWhatCannotBeUnderstoodIsLeftAsItIs(t *testing.T) {
	replace := func(old, by string) string {
		if !strings.Contains(oneRing, old) {
			t.Fatalf("%q is not there", old)
		}
		return strings.Replace(oneRing, old, by, 1)
	}
	second := strings.TrimSpace(oneRing[strings.Index(oneRing, "    {"):strings.Index(oneRing, "  ]")])
	for what, text := range map[string]string{
		"empty":               "",
		"zeros":               "\x00\x00\x00",
		"cut":                 oneRing[:len(oneRing)/2],
		"more behind":         oneRing + "{}",
		"a newer version":     replace(`"version": 1`, `"version": 2`),
		"no version":          replace(`"version": 1,`, ``),
		"an unknown field":    replace(`"run"`, `"walk": 1, "run"`),
		"an unknown setting":  replace(`"mode"`, `"colour": "red", "mode"`),
		"a field twice":       replace(`"run": 7`, `"run": 6, "run": 7`),
		"another case":        replace(`"run"`, `"RUN"`),
		"a field missing":     replace(`"owner_uid": 0,`, ``),
		"max message missing": replace(`"max_message_bytes": 1000,`, ``),
		"max message zero":    replace(`"max_message_bytes": 1000`, `"max_message_bytes": 0`),
		"default retain":      replace(`"retain_bytes": 0`, `"retain_bytes": -1`),
		"run 0":               replace(`"run": 7`, `"run": 0`),
		"no further run":      replace(`"run": 7`, fmt.Sprintf(`"run": %d`, runMax)),
		"negative run":        replace(`"run": 7`, `"run": -7`),
		"fraction":            replace(`"run": 7`, `"run": 7.5`),
		"a bad name":          replace(`"/r"`, `"/../r"`),
		"bad capacity":        replace(`65536`, `65537`),
		"bad policy":          replace(`lossless`, `lossful`),
		"bad mode":            replace(`384`, `512`),
		"bad stall":           replace(`1000000000`, `1`),
		"uid too large":       replace(`"owner_uid": 0`, `"owner_uid": 4294967296`),
		"id beyond the last":  replace(`"last_id": 3`, `"last_id": 1`),
		"id 0":                replace(`"id": 2`, `"id": 0`),
		"null":                "null",
		"no list":             `{"version":1,"run":7,"boot_id":"boot","attached":false,"last_id":3,"rings":null}`,
		"a ring twice":        replace("    }\n  ]", "    },\n    "+second+"\n  ]"),
		"a name twice":        replace("    }\n  ]", "    },\n    "+strings.Replace(second, `"id": 2`, `"id": 3`, 1)+"\n  ]"),
		"too large":           oneRing + strings.Repeat(" ", definitionsMax),
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, definitionsName)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(Options{Dir: dir, BootID: "boot"}); err == nil {
			r.Close()
			t.Errorf("%s: it was opened", what)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name the file: %v", what, err)
		} else if what == "an unknown setting" && !strings.Contains(err.Error(), "colour") {
			t.Errorf("%s: the error does not name it: %v", what, err)
		}
		if now, err := os.ReadFile(name); err != nil || string(now) != text {
			t.Errorf("%s: the file was changed: %v", what, err)
		}
	}
	for _, key := range []string{"", "short", strings.Repeat("x", 33)} {
		dir := t.TempDir()
		name := filepath.Join(dir, keyName)
		if err := os.WriteFile(name, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(Options{Dir: dir, BootID: "boot"}); err == nil {
			r.Close()
			t.Errorf("opened with a key of %d bytes", len(key))
		}
		if now, err := os.ReadFile(name); err != nil || string(now) != key {
			t.Errorf("a key of %d bytes was changed: %v", len(key), err)
		}
	}
}

func TestAsManyRingsAsThereMayBeCanBeReadBack(t *testing.T) {
	w := newWorld(t, Options{FS: vfs.NewCrash(rand.New(rand.NewPCG(1, 2))), Dir: "/state"})
	s := Default(1<<32-2, 1<<32-2)
	s.Capacity, s.Retain, s.Stall, s.Mode = limits.RingCapacityMax, limits.RingRetainMax, limits.RingStallMax, 0o777
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	w.admin.Lock()
	for i := range uint64(limits.Rings) {
		name := fmt.Sprintf("/%0*d", limits.NameLength, i)
		w.byName[name] = newRing(w.Rings, name, 1<<63+i, time.Unix(1<<32, 999999999), s)
		w.lastID = 1<<63 + i
	}
	w.admin.Unlock()
	_, _, err := w.Create(context.Background(), root, "/another", small, false)
	wants(t, err, reason.QuotaExceeded, "1024")
	w.restart()
	if n := w.Totals().Rings; n != limits.Rings {
		t.Errorf("%d rings", n)
	}
}

func TestFailedWritesChangeNothing(t *testing.T) {
	disk := vfs.NewCrash(rand.New(rand.NewPCG(1, 2)))
	full := false
	w := newWorld(t, Options{Dir: "/state", FS: vfs.NewFault(disk, func(op vfs.Op) vfs.Verdict {
		if full && op.Kind == vfs.OpWrite {
			return vfs.Fail(syscall.ENOSPC)
		}
		return vfs.Pass()
	})})
	ctx := context.Background()
	w.create(alice, "/r", small)
	before := w.info("/r")
	full = true
	_, _, err := w.Create(ctx, alice, "/s", small, false)
	wants(t, err, reason.DiskFull)
	_, err = w.Update(ctx, alice, "/r", func(s *Settings) error { s.Mode = 0; return nil })
	wants(t, err, reason.DiskFull)
	_, err = w.Delete(ctx, alice, "/r")
	wants(t, err, reason.DiskFull)
	_, err = w.Attach(ctx, alice, AttachRequest{Name: "/r", Role: Consumer}) // it would not be waited for after a restart
	wants(t, err, reason.DiskFull)
	full = false
	if after := w.info("/r"); !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if n := w.quotas.Account(alice.Principal()).Used(quota.Rings); n != 1 {
		t.Errorf("%d rings are charged", n)
	}
	_, err = w.Get(ctx, alice, "/s")
	wants(t, err, reason.RingNotFound)
	if i := w.create(alice, "/s", small); i.ID != 2 {
		t.Errorf("/s has id %d", i.ID)
	}
	w.consumer(alice, "/r")
}

func TestPowerCutsLeaveOldOrNewDefinitions(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := vfs.NewCrash(rng)
		disk.CrashAfter(1 + rng.IntN(60))
		acked := map[string]bool{}
		unsure := ""
		r, err := Open(Options{Dir: "/state", FS: disk, BootID: "boot"})
		for i := 0; err == nil && i < 20; i++ {
			name := fmt.Sprintf("/r%d", rng.IntN(4))
			unsure = name
			if acked[name] {
				_, err = r.Delete(context.Background(), root, name)
			} else {
				_, _, err = r.Create(context.Background(), root, name, small, true)
			}
			if err == nil {
				acked[name] = !acked[name]
			}
		}
		if r != nil {
			r.Close()
		}
		r, err = Open(Options{Dir: "/state", FS: disk.Crash(rng), BootID: "boot"})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range 4 {
			name := fmt.Sprintf("/r%d", i)
			_, err := r.Get(context.Background(), root, name)
			if there := err == nil; there != acked[name] && name != unsure {
				t.Errorf("seed %d: %s is there: %v, and should be: %v", seed, name, there, acked[name])
			} else if !there && !errors.Is(err, reason.New(reason.RingNotFound, "")) {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		r.Close()
	}
}

func FuzzDefinitions(f *testing.F) {
	f.Add([]byte(oneRing))
	f.Add([]byte(`{"version":1,"run":1,"boot_id":"","attached":true,"last_id":0,"rings":[]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		decoded, err := decode(data)
		if err != nil {
			return
		}
		// What is accepted loses nothing when it is written again.
		again, err := json.Marshal(decoded)
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, data); err != nil || !bytes.Equal(again, compact.Bytes()) {
			t.Errorf("%s became %s", data, again)
		}
		for _, d := range decoded.Rings {
			s := d.settings()
			if err := s.geometry().Check(); err != nil {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}
