package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// TestRandomHistoriesLeaveOnlyWhatMayBeLeft changes a file at random, crashes,
// and looks at each sector: it must be one of the versions since the last sync.
func TestRandomHistoriesLeaveOnlyWhatMayBeLeft(t *testing.T) {
	const limit = 5 * pageSize / 2
	for seed := range uint64(2000) {
		rng := seeded(seed)
		c := NewCrash(rng)
		f := durable(t, c, "f", "")
		history := [][]byte{nil} // of the whole file, since the last sync
		for range rng.IntN(25) {
			now := slices.Clone(history[len(history)-1])
			off, n := rng.IntN(limit), rng.IntN(limit)
			switch rng.IntN(5) {
			case 0, 1:
				n = min(n, limit-off)
				text := bytes.Repeat([]byte{byte(rng.IntN(4))}, n)
				write(t, f, string(text), int64(off))
				if n > 0 {
					now = grown(now, off+n)
				}
				copy(now[min(off, len(now)):], text)
			case 2:
				must(t, f.Truncate(int64(n)))
				now = grown(now, n)[:n]
			case 3:
				must(t, f.Allocate(int64(n)))
				now = grown(now, n)
			case 4:
				must(t, f.Sync())
				history = [][]byte{now}
			}
			history = append(history, now)
			if got := content(t, c, "f"); got != string(now) {
				t.Fatalf("seed %d: the present content is wrong", seed)
			}
		}
		outcome := Outcome(rng.IntN(3))
		c = c.CrashWith(outcome, rng)
		found := []byte(content(t, c, "f"))
		switch outcome {
		case AllLost:
			history = history[:1]
		case NoneLost:
			history = history[len(history)-1:]
		}
		if err := explain(found, history); err != nil {
			t.Fatalf("seed %d, outcome %d: %v", seed, outcome, err)
		}
		f, err := c.Open("f")
		must(t, err)
		must(t, f.Truncate(2*limit))
		if got := content(t, c, "f"); got != string(grown(found, 2*limit)) {
			t.Fatalf("seed %d, outcome %d: there is something behind the end", seed, outcome)
		}
	}
}

// grown returns data with zeros up to size.
func grown(data []byte, size int) []byte {
	return append(data, make([]byte, max(0, size-len(data)))...)
}

// explain says which part of what was found has never been so.
func explain(found []byte, history [][]byte) error {
	sizeKnown := slices.ContainsFunc(history, func(v []byte) bool {
		return len(v) == len(found) || len(v) > len(found) && len(found)%sectorSize == 0 && len(found) > len(history[0])
	})
	if !sizeKnown {
		return fmt.Errorf("the size is %d", len(found))
	}
	for from := 0; from < len(found); from += sectorSize {
		sector := found[from:min(from+sectorSize, len(found))]
		known := slices.ContainsFunc(history, func(v []byte) bool {
			return bytes.Equal(sector, grown(slices.Clone(v), len(found))[from:][:len(sector)])
		})
		if !known {
			return fmt.Errorf("the sector at %d is a mix", from)
		}
	}
	return nil
}

// TestCrashBehavesLikeTheRealFileSystem does the same at random to both.
func TestCrashBehavesLikeTheRealFileSystem(t *testing.T) {
	for seed := range uint64(60) {
		rng := seeded(seed)
		dir := t.TempDir()
		c := NewCrash(seeded(seed))
		must(t, c.MkdirAll(dir))
		both := [2]FS{OS{}, c}
		for step := range 80 {
			choice := rng.Uint64()
			var did [2]string
			for i, fsys := range both {
				did[i] = act(fsys, dir, seeded(choice))
			}
			if did[0] != did[1] {
				t.Fatalf("seed %d, step %d: the real one: %.200q, the simulated one: %.200q", seed, step, did[0], did[1])
			}
		}
	}
}

// act does one thing and says what came of it. Texts of errors may differ.
func act(fsys FS, dir string, rng *rand.Rand) string {
	name := filepath.Join(dir, []string{"a", "b", "c", "sub"}[rng.IntN(4)])
	other := filepath.Join(dir, []string{"a", "b", "c", "sub"}[rng.IntN(4)])
	var err error
	result := ""
	kind := rng.IntN(10)
	switch kind {
	case 0:
		var f File
		if f, err = fsys.Create(name); err == nil {
			err = f.Close()
		}
	case 1:
		if filepath.Base(name) != "sub" { // only files are renamed
			err = fsys.Rename(name, other)
		}
	case 2:
		err = fsys.Remove(name)
	case 3:
		err = fsys.SyncDir(name)
	case 4:
		if filepath.Base(name) == "sub" {
			err = fsys.MkdirAll(name)
		}
	case 5:
		var names []string
		names, err = fsys.ReadDir(dir)
		result = fmt.Sprint(names)
	default:
		open := fsys.Open
		if rng.IntN(8) == 0 {
			open = fsys.OpenRead
		}
		var f File
		if filepath.Base(name) == "sub" { // only files are opened
			break
		}
		if f, err = open(name); err == nil {
			result, err = actOn(f, rng)
			err = errors.Join(err, f.Close())
		}
	}
	return fmt.Sprintf("%d %s %v", kind, result, err == nil)
}

func actOn(f File, rng *rand.Rand) (result string, err error) {
	off, n := rng.Int64N(3*pageSize), rng.Int64N(3*pageSize)
	switch rng.IntN(4) {
	case 0:
		_, err = f.WriteAt(bytes.Repeat([]byte{byte(rng.IntN(3))}, int(n)), off)
	case 1:
		err = f.Truncate(n)
	case 2:
		err = f.Allocate(n)
	case 3:
		err = f.Sync()
	}
	data := make([]byte, n)
	got, readErr := f.ReadAt(data, off)
	size, sizeErr := f.Size()
	return fmt.Sprint(got, readErr == io.EOF, data[:got], size, sizeErr), err
}
