package vfs

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

func TestSyncedContentAndEntriesSurvive(t *testing.T) {
	text := filled('a', 10_000)
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		durable(t, c, "f", text)
		return content(t, c.Crash(rng), "f")
	}, text)
}

func TestUnsyncedContentMayBeLost(t *testing.T) {
	before, after := filled('a', sectorSize), filled('b', sectorSize)
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", before)
		write(t, f, after, 0)
		return content(t, c.Crash(rng), "f")
	}, before, after)
}

func TestUnsyncedSectorsPersistEachByItself(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", filled('a', 2*sectorSize))
		write(t, f, filled('b', 2*sectorSize), 0)
		text := content(t, c.Crash(rng), "f")
		return text[:1] + text[sectorSize:][:1]
	}, "aa", "ab", "ba", "bb")
}

func TestASectorPersistsAsAnyVersionWrittenSince(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", filled('a', sectorSize))
		write(t, f, "b", 0)
		write(t, f, "c", 100)
		text := content(t, c.Crash(rng), "f")
		return text[:1] + text[100:][:1]
	}, "aa", "ba", "bc") // never "ac": that version did not exist
}

func TestUnsyncedSizeMayBeLost(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", "")
		write(t, f, filled('a', sectorSize), 0)
		return strings.TrimRight(content(t, c.Crash(rng), "f"), "a")
	}, "", filled(0, sectorSize))
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", "abc")
		must(t, f.Truncate(1))
		return content(t, c.Crash(rng), "f")
	}, "abc", "a", "a\x00\x00") // the last: the size came back, the sector did not
}

func TestSyncMakesTheSizeDurable(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", "abc")
		must(t, f.Truncate(1))
		must(t, f.Truncate(2))
		must(t, f.Sync())
		return content(t, c.Crash(rng), "f")
	}, "a\x00")
}

func TestUnsyncedCreateMayVanish(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := create(t, c, "f")
		write(t, f, "a", 0)
		must(t, f.Sync())
		return content(t, c.Crash(rng), "f")
	}, "absent", "a")
}

func TestSyncDirDoesNotMakeContentDurable(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		write(t, create(t, c, "f"), "a", 0)
		must(t, c.SyncDir("."))
		return content(t, c.Crash(rng), "f")
	}, "", "\x00", "a")
}

func TestUnsyncedRenameMayBeUndone(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		durable(t, c, "from", "new")
		durable(t, c, "to", "old")
		must(t, c.Rename("from", "to"))
		c = c.Crash(rng)
		return content(t, c, "from") + " " + content(t, c, "to")
	}, "new old", "absent new")
}

func TestUnsyncedRemoveMayBeUndone(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		must(t, durable(t, c, "f", "a").Close())
		must(t, c.Remove("f"))
		return content(t, c.Crash(rng), "f")
	}, "a", "absent")
}

func TestSyncDirMakesEntriesDurable(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		durable(t, c, "gone", "a")
		durable(t, c, "from", "b")
		must(t, c.Remove("gone"))
		must(t, c.Rename("from", "to"))
		must(t, c.SyncDir("."))
		names, err := c.Crash(rng).ReadDir(".")
		must(t, err)
		return strings.Join(names, " ")
	}, "to")
}

func TestEntriesPersistAsAPrefixOfTheirOrder(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		create(t, c, "a")
		create(t, c, "b")
		must(t, c.Rename("a", "c"))
		must(t, c.Remove("b"))
		names, err := c.Crash(rng).ReadDir(".")
		must(t, err)
		return strings.Join(names, " ")
	}, "", "a", "a b", "b c", "c")
}

func TestEntriesOfOneDirectorySayNothingOfAnother(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		must(t, c.MkdirAll("x"))
		must(t, c.MkdirAll("y"))
		create(t, c, "x/f")
		create(t, c, "y/f")
		must(t, c.SyncDir("x"))
		c = c.Crash(rng)
		inX, err := c.ReadDir("x")
		must(t, err)
		inY, err := c.ReadDir("y")
		must(t, err)
		return strings.Join(inX, " ") + "," + strings.Join(inY, " ")
	}, "f,", "f,f")
}

func TestDirectoriesAreDurableAtOnce(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		must(t, c.MkdirAll("a/b"))
		names, err := c.Crash(rng).ReadDir("a")
		must(t, err)
		return strings.Join(names, " ")
	}, "b")
}

func TestNoneLostKeepsAllButDoesNotMakeItDurable(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", "a")
		write(t, f, "b", 0)
		create(t, c, "g")
		c = c.CrashWith(NoneLost, rng)
		if got := content(t, c, "f") + content(t, c, "g"); got != "b" {
			t.Fatalf("after the process was killed: %q", got)
		}
		c = c.CrashWith(SomeLost, rng)
		return content(t, c, "f") + " " + content(t, c, "g")
	}, "a absent", "a ", "b absent", "b ")
}

func TestAllLostLeavesWhatWasSynced(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", "a")
		write(t, f, filled('b', 5000), 0)
		must(t, c.Rename("f", "g"))
		c = c.CrashWith(AllLost, rng)
		return content(t, c, "f") + " " + content(t, c, "g")
	}, "a absent")
}

func TestAFailedSyncIsNotMadeGoodByALaterOne(t *testing.T) {
	try := func(again bool) func(*testing.T, *Crash, *rand.Rand) string {
		return func(t *testing.T, c *Crash, rng *rand.Rand) string {
			must(t, durable(t, c, "f", "a").Close())
			f, err := NewFault(c, FailNth(1, syscall.EIO, false, OpSync)).Open("f")
			must(t, err)
			write(t, f, "b", 0)
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("error is %v, want EIO", err)
			}
			if again {
				write(t, f, "b", 0)
			}
			must(t, f.Sync())
			if got := content(t, c, "f"); got != "b" {
				t.Fatalf("before the crash: %q", got)
			}
			return content(t, c.Crash(rng), "f")
		}
	}
	overSeeds(t, try(false), "a", "b")
	overSeeds(t, try(true), "b")
}

func TestADeadFileSystemRefusesEverything(t *testing.T) {
	rng := seeded(1)
	c := NewCrash(rng)
	f := durable(t, c, "f", "a")
	next := c.Crash(rng)
	ops := c.Ops()
	_, errRead := f.ReadAt(make([]byte, 1), 0)
	_, errWrite := f.WriteAt(make([]byte, 1), 0)
	_, errSize := f.Size()
	_, errOpen := c.Open("f")
	_, errOpenRead := c.OpenRead("f")
	_, errCreate := c.Create("g")
	_, errReadDir := c.ReadDir(".")
	_, _, errFree := c.Free(".")
	for i, err := range []error{
		errRead, errWrite, errSize, errOpen, errOpenRead, errCreate, errReadDir, errFree, f.Sync(), f.Allocate(1),
		f.Truncate(0), f.Close(), c.MkdirAll("d"), c.Rename("f", "g"), c.Remove("f"), c.SyncDir("."),
	} {
		if !errors.Is(err, ErrCrashed) {
			t.Errorf("operation %d: error is %v, want ErrCrashed", i, err)
		}
	}
	if c.Ops() != ops {
		t.Errorf("a dead file system counted %d operations", c.Ops()-ops)
	}
	if c.Crash(rng) != next {
		t.Error("crashing again gave another file system")
	}
	if got := content(t, next, "f"); got != "a" {
		t.Errorf("the next file system has %q", got)
	}
}

func TestCrashAfterFailsThatOperationAndAllLater(t *testing.T) {
	c := NewCrash(seeded(1))
	f := create(t, c, "f")
	c.CrashAfter(2)
	must(t, f.Sync())
	if err := f.Sync(); !errors.Is(err, ErrCrashed) {
		t.Errorf("second operation: error is %v, want ErrCrashed", err)
	}
	if err := c.SyncDir("."); !errors.Is(err, ErrCrashed) {
		t.Errorf("third operation: error is %v, want ErrCrashed", err)
	}
	if c.Ops() != 3 {
		t.Errorf("counted %d operations, want 3", c.Ops())
	}
}

func TestAWriteDuringWhichThePowerFailsIsAppliedInSectors(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		f := durable(t, c, "f", filled('a', 2*sectorSize))
		c.CrashAfter(1)
		if n, err := f.WriteAt([]byte(filled('b', 2*sectorSize-100)), 50); n != 0 || !errors.Is(err, ErrCrashed) {
			t.Fatalf("wrote %d bytes, error %v", n, err)
		}
		text := content(t, c.CrashWith(NoneLost, rng), "f")
		return text[:1] + text[50:][:1] + text[sectorSize:][:1] + text[2*sectorSize-51:][:2]
	}, "aaaaa", "abaaa", "aabba", "abbba")
}

func TestOtherOperationsDuringWhichThePowerFailsHappenOrNot(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		durable(t, c, "f", "a")
		c.CrashAfter(1)
		if err := c.Rename("f", "g"); !errors.Is(err, ErrCrashed) {
			t.Fatal(err)
		}
		c = c.CrashWith(NoneLost, rng)
		return content(t, c, "f") + " " + content(t, c, "g")
	}, "a absent", "absent a")
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		c.CrashAfter(1)
		if err := c.MkdirAll("a/b"); !errors.Is(err, ErrCrashed) {
			t.Fatal(err)
		}
		names, err := c.Crash(rng).ReadDir("a")
		if err != nil {
			return "nothing"
		}
		return "a/" + strings.Join(names, " ")
	}, "nothing", "a/", "a/b")
}

func TestEqualSeedsGiveEqualOutcomes(t *testing.T) {
	run := func(seed uint64) string {
		rng := seeded(seed)
		c := NewCrash(rng)
		for _, name := range []string{"a", "b", "c", "d"} {
			f := create(t, c, name)
			write(t, f, filled(name[0], 20_000), 0)
			must(t, f.Sync())
			must(t, f.Truncate(0))
		}
		c = c.CrashWith(SomeLost, rng)
		names, err := c.ReadDir(".")
		must(t, err)
		all := strings.Join(names, " ")
		for _, name := range names {
			all += content(t, c, name)
		}
		return all
	}
	different := map[string]bool{}
	for seed := range uint64(20) {
		first := run(seed)
		for range 5 {
			if run(seed) != first {
				t.Fatalf("seed %d gave different outcomes", seed)
			}
		}
		different[first] = true
	}
	if len(different) < 10 {
		t.Errorf("20 seeds gave only %d outcomes", len(different))
	}
}
